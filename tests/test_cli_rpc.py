"""`python -m tachyon serve` and `call`: two processes, their exit codes, and what they say."""

import os
import signal
import subprocess
import sys
import time

import pytest

PATIENCE = float(os.environ.get("TACHYON_TEST_PATIENCE", "60"))  # seconds; as in conftest.py

SHOP = """
import os, time
import tachyon

dispatcher = tachyon.RpcDispatcher(send_details=True)
not_one = object()

@dispatcher.handler(1)
def echo(request):
    return request

@dispatcher.handler(2)
def fail(request):
    raise ValueError("out of apples")

@dispatcher.handler(3)
def die(request):
    os._exit(9)

@dispatcher.handler(4)
def slow(request):
    open("begun", "x").close()
    while not os.path.exists("go on"):
        time.sleep(0.01)
    return b"done"

class Holder:
    inner = dispatcher
"""


def command(*words, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "tachyon", *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "broken.py").write_text("import no_such_thing_at_all\n")
    return tmp_path


@pytest.fixture(autouse=True)
def signals_are_not_ignored():
    """Also where the tests run under nohup, or in the background of a shell that has its children ignore Ctrl-C."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def serving(folder, path):
    started = []

    def make(target="shop:dispatcher", *options, **environment):
        process = command("serve", target, path, *options, cwd=folder, env={**os.environ, **environment})
        started.append(process)
        line = process.stderr.readline().decode()
        assert "serving" in line, line + process.stderr.read().decode()
        return process

    yield make
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def call(folder, path):
    def run(*words, code=0, data=None):
        process = command("call", path, *words, cwd=folder)
        try:
            out, err = process.communicate(data, timeout=PATIENCE)
        finally:
            process.kill()
        assert process.returncode == code, err
        assert b"Traceback" not in err
        return out if code == 0 else err.decode()

    return run


def test_a_call_prints_its_answer_from_an_argument_stdin_or_nothing(serving, call):
    serving()
    assert call("1", "two apples") == b"two apples"
    assert call("0x1", "-", data=b"\x00\xff\n" * 1000) == b"\x00\xff\n" * 1000
    assert call("1") == b""


def test_a_failed_call_says_why_and_exits_with_1(serving, call):
    serving("shop:Holder.inner")
    assert "msg_type 2 failed: ValueError: out of apples" in call("2", "x", code=1)
    assert "no handler" in call("99", code=1)


def test_larger_rings_take_larger_calls(serving, call):
    serving("shop:dispatcher", "--calls", "4M", "--replies", "4M")
    assert call("1", "-", data=bytes(4_000_000)) == bytes(4_000_000)


def test_the_default_rings_take_a_large_array(serving, call):
    serving()
    assert call("1", "-", data=bytes(1_000_000)) == bytes(1_000_000)


def test_a_request_may_take_longer_to_type_than_its_timeout(serving, folder, path, until):
    serving()
    process = command("call", path, "4", "-", "--timeout", "1.5", cwd=folder)
    time.sleep(2)
    process.stdin.close()
    until((folder / "begun").exists)
    time.sleep(0.1)  # no answer by luck, before a timeout that is over already
    (folder / "go on").touch()
    assert process.stdout.read() == b"done", process.stderr.read()
    assert process.wait(PATIENCE) == 0
    process.stdout.close()
    process.stderr.close()


def test_serve_finds_a_module_here_even_in_safe_mode(serving, call):
    serving(PYTHONSAFEPATH="1")  # where Python itself does not look here
    assert call("1", "x") == b"x"


def test_without_a_server_or_an_answer_a_call_times_out_with_4(serving, call, folder):
    assert "no listener" in call("1", "--timeout", "0.1", code=4)
    serving()
    assert "no answer" in call("4", "--timeout", "0.3", code=4)
    (folder / "go on").touch()


def test_a_server_that_dies_ends_a_call_with_3(serving, call):
    serving()
    assert "died" in call("3", code=3)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_serve_and_removes_the_socket(serving, call, path, number, code):
    process = serving()
    assert call("1", "x") == b"x"
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert "served 1 calls" in err.decode()
    assert "Traceback" not in err.decode()
    assert not os.path.exists(path)


def test_a_signal_lets_the_running_call_finish_and_a_second_one_does_not(serving, call, folder, path, until):
    for wait in (True, False):
        process = serving()
        caller = command("call", path, "4", cwd=folder)
        until((folder / "begun").exists)
        process.send_signal(signal.SIGTERM)
        if wait:
            (folder / "go on").touch()
            assert caller.communicate(timeout=PATIENCE)[0] == b"done"
            assert process.wait(PATIENCE) == 143
            (folder / "go on").unlink()
        else:
            for _ in range(100):
                process.send_signal(signal.SIGTERM)
                try:
                    assert process.wait(0.1) == -signal.SIGTERM
                    break
                except subprocess.TimeoutExpired:
                    continue
            else:
                pytest.fail("it did not end")
            caller.communicate(timeout=PATIENCE)
            assert caller.returncode == 3
        (folder / "begun").unlink()
        process.communicate()


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("shop", "MODULE:DISPATCHER"),
        (":x", "MODULE:DISPATCHER"),
        ("shop:", "MODULE:DISPATCHER"),
        ("nowhere:x", "no module 'nowhere'"),
        ("shop.inner:x", "no module"),
        ("shop:nothing", "has no nothing"),
        ("shop:not_one", "no RpcDispatcher"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(folder, path, target, text):
    process = command("serve", target, path, cwd=folder)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert text in err.decode()
    assert len(err.decode().splitlines()) == 1
    assert not os.path.exists(path)


def test_a_module_that_fails_to_import_shows_its_traceback(folder, path):
    process = command("serve", "broken:x", path, cwd=folder)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "Traceback" in err.decode()
    assert "No module named 'no_such_thing_at_all'" in err.decode()


@pytest.mark.parametrize("bad", ["-1", "65535", "65536", "x", "1.5"])
def test_bad_msg_types_are_wrong_usage(call, bad):
    assert "is not a msg_type" in call("--", bad, code=2)


def test_a_path_where_something_else_listens_is_refused(serving, folder, path):
    serving()
    process = command("serve", "shop:dispatcher", path, cwd=folder)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "another process listens" in err.decode()
