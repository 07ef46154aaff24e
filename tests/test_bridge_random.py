"""A link that does its worst, by hypothesis: what arrives is a prefix, in order, and the end is the right one."""

import pytest

pytest.importorskip("hypothesis", reason="needs hypothesis")

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_bridge_channel import BEGIN, GRACE, WINDOW, World

from tachyon.bridge._channel import LINGER
from tachyon.bridge._samples import How

ENDS = st.sampled_from(["near", "far"])


class Bridge(RuleBasedStateMachine):
    """Two ends, a link that delays, drops, repeats, reorders and is cut, programs that end, gateways that restart."""

    def __init__(self):
        super().__init__()
        self.world = World(rpc=self.rpc)
        self.sent = {"near": [], "far": []}
        self.blamed = None  # what happened, beside the link, that may cut a stream short
        self.is_cut = False

    rpc = False

    def end(self, name):
        return getattr(self.world, name)

    def senders(self):
        return ["near", "far"] if self.rpc else ["far"]

    @initialize(met=st.booleans())
    def the_ends_have_met_already(self, met):
        if met:
            self.world.settle(1.0)

    @rule(name=ENDS, count=st.integers(1, 300))
    def a_program_sends(self, name, count):
        end = self.end(name)
        if name in self.senders() and end is not None and end.how is None:
            start = len(self.sent[name])
            numbers = list(range(start, start + count))
            self.sent[name] += numbers
            end.to_send += numbers

    @rule(name=ENDS, how=st.sampled_from([How.CLOSED, How.ABORTED, How.DIED]))
    def a_program_ends(self, name, how):
        end = self.end(name)
        if name in self.senders() and end is not None and end.how is None:
            end.how = how

    @rule()
    def both_gateways_run(self):
        self.world.collect()
        if self.is_cut:
            self.world.under_way = {"near": [], "far": []}

    @rule(name=ENDS, data=st.data())
    def a_sample_arrives(self, name, data):
        waiting = self.world.under_way[name]
        if waiting:
            self.world.deliver(name, data.draw(st.integers(0, min(len(waiting), 20) - 1)))

    @rule(name=ENDS)
    def all_samples_arrive_in_order(self, name):
        for _ in range(len(self.world.under_way[name])):
            self.world.deliver(name)

    @rule(name=ENDS, data=st.data())
    def a_sample_is_lost(self, name, data):
        waiting = self.world.under_way[name]
        if waiting:
            waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))

    @rule(name=ENDS, data=st.data())
    def a_sample_comes_twice(self, name, data):
        waiting = self.world.under_way[name]
        if waiting:
            waiting.insert(0, waiting[data.draw(st.integers(0, len(waiting) - 1))])

    @rule(name=ENDS, count=st.integers(1, 20))
    def a_program_reads(self, name, count):
        for _ in range(count):
            if self.end(name) is not None:
                self.end(name).write()

    @precondition(lambda self: self.world.now < 120)  # less than one lingers for another who says nothing
    @rule(seconds=st.floats(0.01, 3))
    def time_passes(self, seconds):
        self.world.now += seconds
        if self.rpc and not self.world.near.channel.peer and self.world.now - BEGIN >= GRACE:
            self.blamed = "grace"  # a caller does not wait for ever

    @precondition(lambda self: not self.is_cut)
    @rule()
    def the_link_is_cut(self):
        self.world.cut()
        self.is_cut = True
        self.cut_at = self.world.now

    @precondition(lambda self: self.is_cut)
    @rule()
    def the_link_is_mended(self):
        self.world.mend()
        self.is_cut = False
        if self.world.now - self.cut_at >= GRACE and self.world.near.channel.peer:
            self.blamed = "grace"

    @precondition(lambda self: self.world.far is not None and self.blamed is None)
    @rule()
    def a_consumer_goes(self):
        self.blamed = "consumer"
        self.world.near.channel.reset(How.DIED)

    @precondition(lambda self: self.world.near.channel.peer and self.blamed is None)
    @rule()
    def a_gateway_restarts(self):
        self.blamed = "restart"
        self.world.far = None
        self.world.far_epoch += 1
        self.world.near.channel.on_presence(False, self.world.now)

    @invariant()
    def what_arrived_is_a_prefix_in_order(self):
        for name, other in (("near", "far"), ("far", "near")):
            if self.end(name) is not None and not (self.blamed == "restart" and name == "far"):
                assert self.end(name).written == self.sent[other][: len(self.end(name).written)]

    @invariant()
    def memory_is_bounded_by_the_window(self):
        for end in (self.world.near, self.world.far):
            if end is not None and end.channel.receiver is not None:
                assert end.channel.receiver.bytes <= WINDOW
            if end is not None and end.channel.sender is not None:
                assert end.channel.sender.bytes <= WINDOW + 100

    @invariant()
    def a_clean_end_is_the_end_of_everything(self):
        near = self.world.near
        if near.end_written is not None:
            assert near.written == self.sent["far"]

    def teardown(self):
        world = self.world
        if self.is_cut:
            self.the_link_is_mended()
        steps = max(map(len, self.sent.values())) / 7  # so many go in one
        world.settle((LINGER + 1) * GRACE + steps * 0.3, step=0.3)
        near, far = world.near, world.far
        if self.blamed is None and far is not None:
            if not self.rpc and far.how is not None:
                assert near.written == self.sent["far"]
                assert near.end_written == far.how
                assert far.channel.outcome == (far.how, False, "")
            elif not self.rpc:
                assert near.channel.outcome is None
                assert near.written == self.sent["far"]
            elif near.how is not None or far.how is not None:
                assert near.channel.over
                assert far.channel.over
                assert {near.end_written, far.end_written} != {None}
        elif self.blamed in ("consumer", "restart"):
            assert near.channel.outcome is not None
            if near.end_written is None and not self.rpc:
                assert near.channel.outcome.how in (How.UNKNOWN, How.DIED, How.LOST)


class RpcBridge(Bridge):
    rpc = True


def limits(long):
    return settings(
        max_examples=1000 if long else 40,
        stateful_step_count=50,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.parametrize("machine", [Bridge, RpcBridge])
def test_whatever_the_link_does_a_prefix_arrives_and_the_right_end(machine):
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(machine, settings=limits(False))


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("machine", [Bridge, RpcBridge])
def test_whatever_the_link_does_for_long(machine):
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(machine, settings=limits(True))
