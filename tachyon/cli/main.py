"""Arguments, and what every ending becomes: an exit code and at most one line on stderr."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from tachyon import (
    MAX_CAPACITY,
    MIN_CAPACITY,
    MSG_TYPE_ERROR,
    PeerDeadError,
    TachyonError,
    TachyonTimeoutError,
    __version__,
    get_include,
    get_library_dirs,
)
from tachyon.cli import bridge
from tachyon.cli.bench.arguments import add_arguments
from tachyon.cli.completion import SHELLS, script
from tachyon.cli.exits import ERROR, OK, PEER_GONE, SIGNALLED, TIMED_OUT, USAGE, Failure, Stopped, prog
from tachyon.cli.meter import complain, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EXITS = """\
exit status:
  0    the whole stream went through: written by recv, and send has seen it read to the end
  1    error; one line on stderr says what and where
  2    wrong usage
  3    the other side died or gave up; what recv got is written
  4    nobody came within --timeout
  130  Ctrl-C (143: SIGTERM, 129: SIGHUP)
  141  nobody reads recv's stdout any more
"""

RPC_EXITS = """\
exit status:
  0    call: the answer is on stdout
  1    error: the call failed over there, or there is no such module or dispatcher; one line on stderr says what
  2    wrong usage
  3    the other side died, or closed before it answered
  4    nobody served at PATH, or answered, within --timeout
  130  Ctrl-C (143: SIGTERM, 129: SIGHUP), which is how serve ends
  141  nobody reads call's stdout any more
"""

BENCH_EXITS = """\
exit status:
  0    measured, or compared
  1    error; one line on stderr. Also where the machine is not fit for ratios: one core, or others at work on the two
  2    wrong usage
  130  Ctrl-C (143: SIGTERM, 129: SIGHUP)
"""

EXAMPLES = """\
examples:
  python -m tachyon recv /tmp/bus -o copy.iso           # in one terminal
  python -m tachyon send /tmp/bus big.iso               # in another

  python -m tachyon recv /tmp/bus | tar x
  tar c folder | python -m tachyon send /tmp/bus

  python -m tachyon serve shop.orders:dispatcher /tmp/shop    # an RpcDispatcher in shop/orders.py
  python -m tachyon call /tmp/shop 7 "two apples"

"""


def _capacity(text: str) -> int:
    match = re.fullmatch(r"(\d{1,12})([KMG]?)", text.strip().upper())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write bytes, or use K, M or G, e.g. 4M")
    size = int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]
    if not MIN_CAPACITY <= size <= MAX_CAPACITY or size & (size - 1):
        near = min(MAX_CAPACITY, max(MIN_CAPACITY, 1 << (size - 1).bit_length())) if size else MIN_CAPACITY
        raise argparse.ArgumentTypeError(
            f"{text} must be a power of two between {MIN_CAPACITY} bytes and {MAX_CAPACITY >> 30}G; take {_short(near)}"
        )
    return size


def _short(size: int) -> str:
    for unit, shift in (("G", 30), ("M", 20), ("K", 10)):
        if size >> shift and not size % (1 << shift):
            return f"{size >> shift}{unit}"
    return str(size)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:  # NaN too
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 0 or more")
    return seconds


def _msg_type(text: str) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number < MSG_TYPE_ERROR:
        raise argparse.ArgumentTypeError(f"{text!r} is not a msg_type, 0 to {MSG_TYPE_ERROR - 1}")
    return number


class _Folder(argparse.Action):
    """Prints a folder for a C++ build to use, and ends, as --version does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        find: Callable[[], str] = self.const
        try:
            print(find())
        except FileNotFoundError as error:
            parser.exit(ERROR, f"{prog()}: {error}\n")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog(),
        description="Byte streams and calls between processes of this machine, through shared memory.",
        epilog=EXAMPLES.replace("python -m tachyon", prog()) + EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tachyon-ipc {__version__}")
    for option, find, text in (
        (
            "--cmake-dir",
            lambda: get_library_dirs()[0] + "/cmake/tachyon",
            "print where find_package(tachyon) shall look",
        ),
        ("--pkgconfig-dir", lambda: get_library_dirs()[0] + "/pkgconfig", "print what to add to PKG_CONFIG_PATH"),
        ("--include-dir", get_include, "print the folder of the C++ headers"),
    ):
        parser.add_argument(option, action=_Folder, nargs=0, const=find, help=text)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")

    def command(name: str, summary: str, text: str, exits: str = EXITS) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=text,
            epilog=exits,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    send = command(
        "send",
        "send a file, or stdin, to a listening recv",
        "Connect to the `recv`, or any Bus, that listens at PATH and send it FILE, or stdin.\n"
        "Ends when all of it has been read.",
    )
    send.add_argument("path", metavar="PATH", help="socket path that recv listens at")
    send.add_argument("file", metavar="FILE", nargs="?", default="-", help="what to send; - or nothing is stdin")
    send.add_argument(
        "--timeout",
        metavar="S",
        type=_seconds,
        default=10.0,
        help="seconds to wait for recv to listen; 0 tries once (default: 10)",
    )

    recv = command(
        "recv",
        "listen, and receive one stream into a file, or to stdout",
        "Listen at PATH, take one `send`, or any producer on a Bus, and write the bytes of its messages to FILE,\n"
        "or to stdout, one after another; type_ids are not looked at.",
    )
    recv.add_argument("path", metavar="PATH", help="socket path to listen at; gone again once a sender has connected")
    recv.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        default="-",
        help="written as FILE.part, and renamed when whole; - is stdout (default: -)",
    )
    recv.add_argument(
        "--timeout", metavar="S", type=_seconds, default=None, help="seconds to wait for send (default: for ever)"
    )
    recv.add_argument(
        "--capacity",
        metavar="SIZE",
        type=_capacity,
        default=4 << 20,
        help="bytes of ring, a power of two; K, M and G are understood (default: 4M)",
    )
    for parsed in (send, recv):
        parsed.add_argument("-q", "--quiet", action="store_true", help="no progress, no summary; errors are still told")

    serve = command(
        "serve",
        "serve an RpcDispatcher to any number of callers",
        "Serve DISPATCHER, an RpcDispatcher in MODULE, at PATH. MODULE is looked for in this folder too.",
        RPC_EXITS,
    )
    serve.add_argument("target", metavar="MODULE:DISPATCHER", help="e.g. shop.orders:dispatcher")
    serve.add_argument("path", metavar="PATH", help="socket path to listen at")
    for ring in ("calls", "replies"):
        serve.add_argument(
            f"--{ring}",
            metavar="SIZE",
            type=_capacity,
            default=1 << 20,
            help=f"bytes of ring for each caller's {ring}, a power of two (default: 1M)",
        )
    serve.add_argument("-q", "--quiet", action="store_true", help="say nothing, log nothing; errors are still told")

    call = command(
        "call", "make one call and print its answer", "Call a `serve`, or any RpcServer, at PATH.", RPC_EXITS
    )
    call.add_argument("path", metavar="PATH", help="socket path that the server listens at")
    call.add_argument("msg_type", metavar="MSG_TYPE", type=_msg_type, help="which handler: 0 to 65534, or 0x…")
    call.add_argument("payload", metavar="PAYLOAD", nargs="?", help="the request; - is stdin (default: empty)")
    call.add_argument("-q", "--quiet", action="store_true", help="do not show that it waits; errors are still told")
    call.add_argument("--timeout", metavar="S", type=_seconds, default=10.0, help="seconds for all of it (default: 10)")

    across = command(
        "bridge",
        "carry buses and calls to and from another machine",
        "Run the gateway of this machine: carry each ROUTE to or from a gateway that was given the same NAME.\n"
        "Both need an endpoint that connects them: one listens, the other connects, or both connect to a router.",
        bridge.BRIDGE_EXITS,
    )
    bridge.add_arguments(across, _capacity, _seconds)

    command(
        "demo",
        "see it work: a few hundred megabytes and some round trips between two processes",
        "Stream this Python's standard library and executable to a second process and compare digests,\n"
        "then time round trips of 32 bytes. Takes some seconds.",
    )

    bench = command(
        "bench",
        "measure this machine, side by side with what one would otherwise use",
        "Measure sends, round trips and large messages between two processes, and the same with pipes, sockets,\n"
        "queues and what else is installed (pyzmq, faster-fifo, iceoryx2). About a minute.\n"
        "How to read it: docs/performance.md.",
        BENCH_EXITS,
    )
    add_arguments(bench)

    completion = command(
        "completion",
        "print the script that completes `tachyon` in a shell",
        'bash: eval "$(tachyon completion bash)" in ~/.bashrc\n'
        'zsh:  eval "$(tachyon completion zsh)" in ~/.zshrc, after compinit\n'
        "fish: tachyon completion fish > ~/.config/fish/completions/tachyon.fish",
        "",
    )
    completion.add_argument("shell", choices=SHELLS)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command in ("demo", "bench"):
        from tachyon.cli import demo
        from tachyon.cli.bench import command

        return demo.demo() if arguments.command == "demo" else command.run(arguments)
    if arguments.command == "completion":
        print(script(arguments.shell, _parser()), end="")
        return OK
    if arguments.command == "bridge":
        return bridge.run(arguments)
    if arguments.command in ("serve", "call"):
        from tachyon.cli import rpc

        if arguments.command == "serve":
            return rpc.serve(arguments.target, arguments.path, arguments.calls, arguments.replies, arguments.quiet)
        return rpc.call(arguments.path, arguments.msg_type, arguments.payload, arguments.timeout, arguments.quiet)
    return _run_stream(arguments)


def _run_stream(arguments: argparse.Namespace) -> int:
    from tachyon.cli import stream

    if arguments.command == "send":
        return stream.send(arguments.path, arguments.file, arguments.timeout, arguments.quiet)
    return stream.recv(arguments.path, arguments.output, arguments.capacity, arguments.timeout, arguments.quiet)


def _stop(signum: int, _frame: object) -> NoReturn:
    raise Stopped(signum)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        return _main(argv)
    finally:
        settle()


def _main(argv: Sequence[str] | None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return USAGE
    try:
        for signum in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) == signal.SIG_DFL:  # nohup's wish is respected
                signal.signal(signum, _stop)
        return _run(arguments)
    except KeyboardInterrupt:
        return SIGNALLED + signal.SIGINT
    except Stopped as error:
        return SIGNALLED + error.signum
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains when it flushes sys.stdout at its end
        return SIGNALLED + signal.SIGPIPE
    except Failure as error:
        code, text = error.code, str(error)
    except TachyonTimeoutError as error:
        code, text = TIMED_OUT, str(error)
    except PeerDeadError as error:
        code, text = PEER_GONE, str(error)
    except (TachyonError, MemoryError) as error:
        code, text = ERROR, str(error) or type(error).__name__
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        code, text = ERROR, f"{where}{error.strerror or error}"
    complain(f"{prog()} {arguments.command}", text)
    return code
