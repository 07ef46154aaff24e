"""Ctrl-C and the loops that serve: the call that is being served is answered first, and nobody is cut off."""

import os
import random
import signal
import sys
import threading
import time

import pytest

import tachyon
from tachyon import RpcBus, RpcEndpoint, RpcError

SERVE = """
    import threading
    dispatcher = tachyon.RpcDispatcher()

    @dispatcher.handler(1)
    def echo(request):
        if request == b"stop": stop_waiting.append(looped.stop())
        return bytes(request)

    @dispatcher.handler(2)
    def slow(request):
        say("serving")
        end = time.monotonic() + 60
        while not stop_waiting and time.monotonic() < end:
            time.sleep(0.005)
        return b"finished"

    stop_waiting = []
    KIND = sys.argv[2]
    if KIND == "server":
        looped = tachyon.RpcServer(path, dispatcher)
        serve = looped.serve_forever
    else:
        bus = tachyon.RpcBus.listen(path, timeout=60)
        looped = dispatcher
        serve = lambda: dispatcher.serve_forever(bus)
"""
KINDS = pytest.mark.parametrize("kind", ["server", "dispatcher"])


@KINDS
def test_the_call_that_is_being_served_is_answered_before_the_loop_returns(spawn, path, kind, run_thread):
    child = spawn(SERVE + """
    threading.Thread(target=lambda: (hear(), stop_waiting.append(1)), daemon=True).start()
    say("ready")
    serve()
    say("returned")
    say(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    """, path, kind)  # fmt: skip
    with RpcBus.connect(path, timeout=60) as caller:
        child.says("ready")
        calling = run_thread(RpcEndpoint(2).call, caller, b"", timeout=60)
        child.says("serving")
        child.send_signal(signal.SIGINT)
        time.sleep(0.05)
        assert not calling.done()
        child.tell()  # the handler may go on, and does
        assert calling.result(60) == b"finished"
        child.says("returned", "True")
    child.ends()


@KINDS
def test_the_second_ctrl_c_interrupts_the_handler_and_its_caller_is_told(spawn, path, kind, run_thread):
    child = spawn(SERVE + """
    say("ready")
    serve()
    say("returned")
    """, path, kind)  # fmt: skip
    with RpcBus.connect(path, timeout=60) as caller:
        child.says("ready")
        calling = run_thread(RpcEndpoint(2).call, caller, b"", timeout=60)
        child.says("serving")
        for _ in range(2):
            child.send_signal(signal.SIGINT)
            time.sleep(0.1)
        with pytest.raises(RpcError):
            calling.result(60)
        child.says("returned")
    child.ends()


@KINDS
def test_ctrl_c_at_random_moments_cuts_no_caller_off(spawn, path, kind):
    """The loop is entered again each time; every call is answered, each once, and rightly."""
    child = spawn(SERVE + """
    rounds = 0
    say("ready")
    while True:
        try:
            while not stop_waiting:
                serve()
                rounds += 1
            break
        except KeyboardInterrupt:  # between two loops
            pass
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    say(rounds)
    """, path, kind)  # fmt: skip
    draw = random.Random(1)
    done = threading.Event()

    def interrupt():
        while not done.is_set():
            time.sleep(0.02 + draw.random() * 0.02)  # the loop has returned by then: a second one would be rude
            os.kill(child.pid, signal.SIGINT)

    with RpcBus.connect(path, timeout=60) as caller:
        child.says("ready")
        echo = RpcEndpoint(1)
        assert echo.call(caller, b"first", timeout=60) == b"first"
        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        try:
            end = time.monotonic() + 3
            i = 0
            while time.monotonic() < end:
                i += 1
                assert echo.call(caller, b"%d" % i, timeout=60) == b"%d" % i
        finally:
            done.set()
            interrupting.join(60)
        assert echo.call(caller, b"stop", timeout=60) == b"stop"
        assert int(child.line()) > 5
    child.process.wait(60)


def test_somebody_elses_handler_stays(path):
    seen = []

    def mine(*_):
        seen.append(1)
        server.stop()

    before = signal.signal(signal.SIGINT, mine)
    try:
        with tachyon.RpcServer(path, tachyon.RpcDispatcher()) as server:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            server.serve_forever()
            assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [1]


def test_a_loop_in_another_thread_handles_no_signals(path, run_thread, until):
    before = signal.getsignal(signal.SIGINT)
    with tachyon.RpcServer(path, tachyon.RpcDispatcher()) as server:
        serving = run_thread(server.serve_forever)
        with RpcBus.connect(path, timeout=60):
            until(lambda: server.stats()["callers"] == 1)
            assert signal.getsignal(signal.SIGINT) is before
        server.stop()
        serving.result(60)


def test_ctrl_c_in_the_first_steps_of_a_loop_does_not_come_out_of_it(path, monkeypatch):
    """Forced at the n-th step that Python code takes from the call on, whatever it is."""
    monkeypatch.setattr("tachyon._server.STOP_INTERVAL", 0.01)  # each of the rounds waits for it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with tachyon.RpcServer(path, tachyon.RpcDispatcher()) as server:
            for step in range(1, 30):
                steps = 0

                def profile(frame, event, _, step=step):
                    nonlocal steps
                    if "serve_forever" in str(_) or steps > 0 or frame.f_code.co_name.startswith("_"):
                        steps += 1
                    if steps == step + 1:
                        sys.setprofile(None)
                        signal.raise_signal(signal.SIGINT)

                sys.setprofile(profile)
                try:
                    server.serve_forever()
                finally:
                    sys.setprofile(None)
                assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
