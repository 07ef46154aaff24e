"""A signal at any moment of `send`, `recv` and `call`: what was not whole must never look whole to the other side."""

import signal

import pytest

STRIKE = """
import contextlib, dis, gc, io, itertools, threading
from tachyon.cli import rpc, stream
sys.stderr = sys.stdout = io.StringIO()

def trace(frame, event, _):
    global count
    if "/tachyon/cli/" not in frame.f_code.co_filename and frame.f_code.co_filename != contextlib.__file__:
        return None
    frame.f_trace_opcodes = True
    # A NOP stands outside of the block that it opens: no exception can come from it, nor a signal.
    if event == "opcode" and frame.f_code.co_code[frame.f_lasti] != dis.opmap["NOP"]:
        count += 1
        if count == at:
            raise KeyboardInterrupt
    return trace

def strike(command):
    "Run it with a Ctrl-C at opcode number `at`; whether it came to its end. Nothing of it is left afterwards."
    global count
    count = 0
    sys.settrace(trace)
    try:
        command()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    gc.collect()
    return count < at

gc.freeze()
"""


def test_ctrl_c_at_any_opcode_of_send_is_no_end_of_stream(spawn, path, tmp_path):
    (tmp_path / "in").write_bytes(b"whole")
    child = spawn(
        STRIKE
        + """
def take():
    for bus in listener:
        with bus:
            got = b""
            try:
                for message in bus:
                    if message.type_id == 9: return
                    got += message.data
            except tachyon.PeerDeadError:
                continue
            if got != b"whole":
                wrong.append((at, got))

listener, wrong = tachyon.Listener(path, 4096), []
thread = threading.Thread(target=take)
thread.start()
for at in itertools.count(1):
    if strike(lambda: stream.send(path, "in", 20, False)):
        break
with tachyon.Bus.connect(path, timeout=60) as bus:
    bus.send(b"", 9)
    thread.join()
sys.stdout = sys.__stdout__
say(at > 200, *wrong)
""",
        path,
    )
    child.says("True")
    child.ends()


def test_ctrl_c_at_any_opcode_of_recv_does_not_confirm_the_stream(spawn, path):
    child = spawn(
        STRIKE
        + """
def give():
    while not over:
        try:
            with tachyon.Bus.connect(path, timeout=0.1) as bus:
                bus.finish()
        except tachyon.TachyonError:
            continue
        confirmed.append(at)

at, over, confirmed, files = 0, False, [], []
thread = threading.Thread(target=give)
thread.start()
for at in itertools.count(1):
    ended = strike(lambda: stream.recv(path, "out", 4096, 60, False))
    if os.path.exists("out"):
        os.unlink("out")
        files.append(at)
    if ended:
        break
over = True
thread.join()
sys.stdout = sys.__stdout__
say(at > 200, *sorted(set(confirmed) - set(files)))
""",
        path,
    )
    child.says("True")
    child.ends()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_send_that_waits_for_its_receipt(spawn, path, tmp_path, number, code):
    (tmp_path / "in").write_bytes(b"x" * 1000)
    receiver = spawn(
        """
        with tachyon.Bus.listen(path, 4096, timeout=60) as bus:
            say("connected")
            hear()
            try:
                for message in bus: say(message.size)
            except tachyon.PeerDeadError as error: say(error.reason)
        """,
        path,
    )
    sender = spawn("from tachyon.cli.main import main; sys.exit(main(['send', path, 'in']))", path)
    receiver.says("connected")
    receiver.stop()
    sender.falls_asleep()  # in finish(): the ring has room for all of it
    sender.send_signal(number)
    sender.ends(code)
    receiver.send_signal(signal.SIGCONT)
    receiver.tell()
    receiver.says("1000")  # the end was told before: what is there is whole, only nobody knows whether it was read
    receiver.ends()
