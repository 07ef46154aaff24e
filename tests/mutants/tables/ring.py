"""The rules of the ring."""

from table import Mutant as M

RING = "cxx/include/tachyon/ring/ring.hpp"
BUS = "cxx/src/bus.cpp"

TABLE = {
"the invariant: the word at the write position reads 0": [
    M("release clears only the header line", RING,
      "detail::clear_lines(line, line + bytes);", "detail::clear_lines(line, line + kLine);", "cxx/ring"),
    M("release of one line clears nothing", RING,
      "detail::word_at(line).store(0, std::memory_order_relaxed);  // published by [free]", ";", "cxx/ring"),
    M("padding is not cleared", RING,
      "detail::word_at(memory_.data + (freed_ & mask_)).store(0, std::memory_order_relaxed);  // published by [free]",
      ";", "cxx/ring"),
    M("a shrunk claim is not cleared", RING,
      "detail::clear_lines(start + frame, start + claimed_);", ";", "cxx/ring"),
    M("an aborted claim is not cleared", RING,
      "detail::clear_lines(line() + kLine, line() + claimed_);", ";", "cxx/ring"),
    M("no cursor bound while the whole ring is held", RING,
      "if (cursor_ - freed_ == memory_.capacity) [[unlikely]]", "if (false)", "cxx/ring"),
    M("has_frame without the cursor bound", RING,
      "return !holds_whole_ring() && has_word();", "return has_word();", "cxx/ring"),
],
"room and padding": [
    M("padding does not wait for the frame behind it", RING,
      "return rest + frame <= memory_.capacity ? rest + frame : rest;", "return rest;", "cxx/ring"),
    M("padding is never alone", RING,
      "return rest + frame <= memory_.capacity ? rest + frame : rest;", "return rest + frame;", "cxx/ring"),
    M("one line too many fits", RING,
      "if (write_position_ + bytes - cached_read_position_ <= memory_.capacity) [[likely]]",
      "if (write_position_ + bytes - cached_read_position_ <= memory_.capacity + kLine) [[likely]]", "cxx/ring"),
    M("padding behind the last held frame is forgotten", RING,
      "if (freed_ != cursor_ && held() == 0) [[unlikely]]", "if (false) [[unlikely]]", "cxx/ring"),
    M("padding before a held frame is forgotten", RING,
      "if (freed_ != frame.position) [[unlikely]]", "if (false) [[unlikely]]", "cxx/ring"),
],
"read_position": [
    M("peek says empty without handing back", RING + "::peek",
      "hand_back();", "", "cxx/ring"),
    M("read_position is published for every message", RING,
      "if (pending_ >= publish_every_ ||", "if (true ||", "cxx/ring"),
    M("read_position is published only when idle", RING,
      "if (pending_ >= publish_every_ ||", "if (false ||", "cxx/ring"),
    M("a parked producer is not told of a release", RING,
      "|| memory_.header->producer_parked.load(std::memory_order_relaxed) != 0) {", ") {", "cxx/ring"),
    M("a wait for a message does not hand back", BUS + "::prepare_wait",
      "consumer_.hand_back();", "", "cxx/bus"),
],
"released before one's turn": [
    M("whoever waits with the whole ring does not see it go", BUS,
      "blocked_.store(false, std::memory_order_release);  // [unblock]", "", "cxx/held"),
    M("a frame is released twice", BUS,
      "if (has_previous && frame.position < std::prev(next)->end) return Status::no_claim;", "", "cxx/held"),
    M("a frame that nobody peeked is released", BUS,
      "|| end > consumer_.cursor()) return Status::no_claim;", ") return Status::no_claim;", "cxx/held"),
    M("padding parts two runs", RING,
      "return position != padding_ ? position : position + (memory_.capacity - (position & mask_));",
      "return position;", "cxx/held"),
    M("of a run only what lies before the end is cleared", RING,
      "detail::clear_lines(memory_.data, memory_.data + (bytes - before_end));", "", "cxx/held"),
],
}
