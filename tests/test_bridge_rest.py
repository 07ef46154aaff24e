"""A gateway that waits for the other one: it waits, and takes no processor for it."""

import time

import tachyon


def test_a_consumer_that_goes_at_the_very_end_of_a_cut_stream_costs_no_time_of_a_processor(
    gateways, network, tmp_path, until
):
    exporting, importing = gateways(grace=30.0)
    route = exporting.export(str(tmp_path / "near"), "a", capacity=4096)
    far = importing.import_("a", str(tmp_path / "far"), capacity=4096, listens=True)
    consumer = tachyon.Bus.connect(str(tmp_path / "far"), timeout=60)
    with tachyon.Bus.connect(str(tmp_path / "near"), timeout=60) as producer:
        producer.send(b"x")
    until(lambda: far._now() and far._now()[0]._sink_is_busy)
    session = far._now()[0]
    network.cut()
    consumer.abort()
    until(lambda: session.outcome is not None)
    turns = 0
    look = session.channel.next_control

    def counted(*args, **options):
        nonlocal turns
        turns += 1
        return look(*args, **options)

    session.channel.next_control = counted
    time.sleep(1.0)
    assert 0 < turns < 100
    network.mend()
    assert far.ended.wait(60)
    assert route.ended.wait(60)
