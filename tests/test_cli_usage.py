"""`python -m tachyon`: usage, errors, and what a terminal sees."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from commands import MESSAGE, PATIENCE

import tachyon

# ---- not even started ------------------------------------------------------------------------------------------------


def test_no_listener(command, path):
    _, said = command("send", path, "--timeout", "0").ends(1)
    assert str(path) in said
    _, said = command("send", path, "--timeout", "0.1").ends(4)
    assert str(path) in said


def test_no_sender(command, path):
    _, said = command("recv", path, "--timeout", "0.1").ends(4)
    assert str(path) in said
    assert not os.path.exists(path)


def test_a_path_that_cannot_be_listened_at(command, path, tmp_path):
    Path(path).write_text("precious")
    for bad in (path, tmp_path / "no" / "folder", tmp_path / ("x" * 200)):
        _, said = command("recv", bad).ends(1)
        assert said.startswith("python -m tachyon recv: ")
        assert str(bad) in said
        assert said.count("\n") == 1
    assert Path(path).read_text() == "precious"


def test_an_input_that_cannot_be_read(command, path, tmp_path):
    _, said = command("send", path, "missing").ends(1)
    assert "missing: No such file" in said
    recv = command("recv", path)
    _, said = command("send", path, tmp_path).ends(1)
    assert "Is a directory" in said
    recv.ends(3)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("recv", "p", "--capacity", "3M"), "take 4M"),
        (("recv", "p", "--capacity", "0"), "take 64"),
        (("recv", "p", "--capacity", "8G"), "take 4G"),
        (("recv", "p", "--capacity", "-4K"), "capacity"),
        (("recv", "p", "--capacity", "many"), "e.g. 4M"),
        (("recv", "p", "--timeout", "nan"), "seconds"),
        (("send", "p", "--timeout", "-1"), "seconds"),
        (("send",), "PATH"),
        (("fly",), "invalid choice"),
        ((), "recv /tmp/bus"),
    ],
)
def test_wrong_usage(command, words, hint):
    _, said = command(*words).ends(2)
    assert hint in said


@pytest.mark.parametrize("name", [None, "send", "recv"])
def test_help_lists_the_exit_codes(command, name):
    out, _ = command(*(word for word in (name, "--help") if word)).ends(0)
    for code in ("0 ", "1 ", "2 ", "3 ", "4 ", "130", "141"):
        assert f"\n  {code} " in out.decode()


def test_without_a_command_the_help_is_shown(command):
    out, said = command().ends(2)
    assert out == b""
    assert said == command("--help").ends(0)[0].decode()


@pytest.mark.parametrize(
    ("more", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_an_error_is_red_on_a_terminal_that_can_and_wants_it(command, path, more, coloured):
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    environment |= {"TERM": "xterm", **more}
    words = ("send", path, "--timeout", "0")
    shown = on_terminal(command, *words, code=1, env=environment)
    assert ("\x1b[31mpython -m tachyon send:\x1b[m no listener" in shown) is coloured
    assert ("\x1b[3" in shown) is coloured
    _, said = command(*words, env=environment).ends(1)
    assert "\x1b" not in said


def test_version(command):
    assert command("--version").ends(0)[0].decode().strip() == f"tachyon-ipc {tachyon.__version__}"


# ---- progress --------------------------------------------------------------------------------------------------------


def on_terminal(command, *words, code=0, **streams):
    """Run with a terminal as stderr; returns what it showed."""
    ours, theirs = pty.openpty()
    shown = b""
    with open(ours, "rb", buffering=0) as screen:
        process = command(*words, stdin=subprocess.DEVNULL, stderr=theirs, **streams)
        os.close(theirs)
        while True:
            try:
                chunk = screen.read(1 << 16)
            except OSError:  # EIO: nobody has the other end open any more
                break
            if not chunk:
                break
            shown += chunk
        assert process.process.wait(PATIENCE) == code
    return shown.decode()


def test_a_terminal_sees_progress(command, path, tmp_path):
    (tmp_path / "in").write_bytes(bytes(5_000_000))
    recv = command("recv", path, "-o", "out")
    shown = on_terminal(command, "send", path, "in")
    assert "MB of 5 MB, " in shown
    assert "%" in shown
    assert "/s" in shown
    assert "\r\x1b[Ksent 5,000,000 bytes" in shown  # in the place of the progress line
    _, said = recv.ends(0)
    assert "\r" not in said  # its stderr is no terminal


def test_a_terminal_sees_progress_of_recv(command, path):
    send = command("send", path)
    send.feed(MESSAGE)
    send.process.stdin.close()
    shown = on_terminal(command, "recv", path, "-o", "out")
    assert "4.1 kB  " in shown
    assert "received 4,096 bytes" in shown


@pytest.mark.parametrize("words", [("recv",), ("send",), ("call", "1")])
@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_sees_that_it_waits(command, path, words, quiet):
    options = ["--timeout", "0.2", *(["-q"] if quiet else [])]
    shown = on_terminal(command, words[0], path, *words[1:], *options, code=4)
    assert shown.startswith("waiting for a ") is not quiet
    assert ("\r\x1b[K" in shown) is not quiet
    _, said = command(words[0], path, *words[1:], *options, stdin=subprocess.DEVNULL).ends(4)
    assert "waiting" not in said


def test_the_console_script_says_its_own_name(command):
    script = Path(sys.executable).parent / "tachyon"
    if not script.is_file():
        pytest.skip("it is not installed beside this Python")
    done = subprocess.run([script, "send", "/nowhere", "--timeout", "0"], capture_output=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert done.stderr.startswith(b"tachyon send: no listener at /nowhere")
    assert subprocess.run([script, "--help"], capture_output=True, timeout=PATIENCE).stdout.startswith(
        b"usage: tachyon "
    )


def test_quiet_draws_nothing_on_a_terminal(command, path, tmp_path):
    (tmp_path / "in").write_bytes(bytes(5_000_000))
    command("recv", path, "-o", "out")
    assert on_terminal(command, "send", path, "in", "--quiet") == ""
