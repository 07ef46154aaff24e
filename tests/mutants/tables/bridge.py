"""The bridge: numbers, windows, ends. Each row is Python, so nothing is built."""

from table import Mutant as M

STREAM = "tachyon/bridge/_stream.py"
CHANNEL = "tachyon/bridge/_channel.py"
SESSION = "tachyon/bridge/_session.py"
PROTOCOL = "test_bridge_channel.py"
RANDOM = "test_bridge_random.py::test_whatever_the_link_does_a_prefix_arrives_and_the_right_end"
WHOLE = "test_bridge.py"

TABLE = {
"a stream over a link that loses": [
    M("what comes before its turn is taken", STREAM,
      "if first == self.received and", "if first >= self.received and", RANDOM),
    M("what was there already is taken again", STREAM,
      "if first == self.received and", "if first <= self.received and",
      f"{PROTOCOL}::test_what_comes_twice_is_written_once"),
    M("everything is forgotten once it has arrived", STREAM,
      "self._kept[0].after <= written", "self._kept[0].after <= received",
      f"{PROTOCOL}::test_a_consumer_that_stalls_gets_nothing_twice_and_memory_stays_bounded"),
    M("nobody asks for news", STREAM,
      "if not self._sent or now - self._news < PATIENCE:", "if True:",
      f"{PROTOCOL}::test_what_is_lost_without_notice_is_sent_again_after_a_second "
      f"{PROTOCOL}::test_an_acknowledgement_that_is_lost_is_asked_for"),
    M("an answer that lacks something says nothing", STREAM,
      "lost = lost or received < self._probed", "pass",
      f"{PROTOCOL}::test_what_is_lost_without_notice_is_sent_again_after_a_second"),
    M("an answer to an older question counts", STREAM,
      "if self._probed is not None and answered == self._probes:", "if self._probed is not None:",
      f"{PROTOCOL}::test_an_answer_from_before_a_question_says_nothing_of_what_is_lost"),
    M("a gap is not told", STREAM,
      "self.gap = first > self.received", "self.gap = False",
      f"{PROTOCOL}::test_one_that_is_missing_is_asked_for_at_once_and_once"),
    M("a gap is told again and again", STREAM,
      "lost = gap and received == self._received != self._gap", "lost = gap",
      f"{PROTOCOL}::test_one_that_is_missing_is_asked_for_at_once_and_once"),
    M("the window is not kept to", STREAM,
      "elif self._under_way + len(batch.sample) > self.window:", "elif False:", RANDOM),
    M("a message larger than the window never goes", STREAM,
      "elif self._under_way + len(batch.sample) > self.window:",
      "if self._under_way + len(batch.sample) > self.window:", f"{WHOLE}::test_one_message_larger_than_the_window_goes_through"),
    M("what has arrived is not acknowledged before it is written", STREAM,
      "self._told != (self.written, self.received)", "self._told[0] != self.written",
      f"{PROTOCOL}::test_what_has_arrived_is_told_before_it_is_written"),
    M("an acknowledgement waits for the whole window", STREAM,
      "4 * self.silent >= self.window", "self.silent >= self.window",
      f"{PROTOCOL}::test_an_acknowledgement_comes_at_least_every_quarter_of_a_window"),
    M("a slow link is sent everything twice", STREAM,
      "        self._news = now\n        if self._probed is None:", "        self.go_back(now)\n        if self._probed is None:",
      f"{PROTOCOL}::test_a_slow_link_is_no_reason_to_send_everything_twice"),
    M("impossible acknowledgements are believed", STREAM,
      "if not written <= received <= self.next_number:", "if False:",
      f"{PROTOCOL}::test_numbers_that_make_no_sense_end_the_session"),
],
"a session and its end": [
    M("nothing is sent again when the other end comes back", CHANNEL,
      "self.sender.go_back(now)  # what was", "pass  # what was",
      f"{PROTOCOL}::test_what_is_lost_in_a_cut_is_sent_again_at_once"),
    M("a greeting is answered once", CHANNEL,
      "if sample.to != (0 if sample.kind == Kind.HELLO else self.epoch) or self.over:", "if sample.to != self.epoch or self.over:",
      f"{PROTOCOL}::test_a_welcome_that_is_lost_is_said_again"),
    M("strangers are heard", CHANNEL,
      "if sample.sender != self.peer:", "if False:", f"{PROTOCOL}::test_samples_of_strangers_are_not_heard"),
    M("an end that stays away is waited for", CHANNEL,
      "return not self.present and self.outcome", "return False and self.outcome",
      f"{PROTOCOL}::test_an_end_that_stays_away_is_lost_after_the_grace_and_not_before"),
    M("no farewell", CHANNEL,
      "self._farewell = self.outcome\n\n    def _next_ack", "self.over = True\n\n    def _next_ack",
      f"{PROTOCOL}::test_both_ends_are_over_within_a_moment_of_the_end"),
    M("kinds may differ", CHANNEL,
      "if bool(rpc) != self.rpc:", "if False:", f"{PROTOCOL}::test_a_bus_and_an_rpc_bus_do_not_meet"),
],
"a bus at the end of a session": [
    M("the far consumer need not have read everything", SESSION,
      "self.bus.finish(timeout=TICK)", "self.bus.close()", f"{WHOLE}::test_messages_and_a_clean_end_go_through"),
    M("an abort becomes a close", SESSION,
      "        if how != How.CLOSED:\n            self.bus.abort()", "        if how != How.CLOSED:\n            self.bus.close()",
      f"{WHOLE}::test_an_abort_arrives_as_one_after_everything"),
    M("an idle consumer's end goes unnoticed", SESSION,
      "                check_peer(self.bus)", "                pass",
      f"{WHOLE}::test_a_consumer_that_aborts_is_told_though_nothing_is_sent"),
    M("a gateway that is stopped leaves what the ring holds", SESSION,
      "if stopping and (batch is None or", "if stopping and (True or",
      f"{WHOLE}::test_stopping_the_exporter_sends_what_the_ring_holds_and_is_no_clean_end"),
],
}
