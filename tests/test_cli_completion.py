"""`tachyon completion`: the scripts, in the shells that they are for."""

import shutil
import subprocess
import sys

import pytest


def script(shell):
    done = subprocess.run([sys.executable, "-m", "tachyon", "completion", shell], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def run(shell, code, folder):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    done = subprocess.run([shell, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["re"], ["recv"]),
        (["--ver"], ["--version"]),
        (["recv", "--c"], ["--capacity"]),
        (["call", "--t"], ["--timeout"]),
        (["send", "--c"], []),
        (["send", "/nowhere", "bi"], ["big file"]),
        (["completion", "f"], ["fish"]),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_a_line_is_completed(shell, words, offered, tmp_path):
    (tmp_path / "big file").touch()
    (tmp_path / "script").write_text(script(shell))
    if shell == "bash":
        line = " ".join(["tachyon", *words])
        call = f"COMP_WORDS=({line}); COMP_CWORD={len(words)}; _tachyon; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        code = f". ./script; complete -p tachyon; {call}"
        head, *found = run("bash", code, tmp_path).splitlines()
        assert head == "complete -o filenames -F _tachyon tachyon"
        found = [each for each in found if each]
    else:
        code = f"source script; complete -C 'tachyon {' '.join(words)}'"
        found = [each.split("\t")[0].replace("\\ ", " ") for each in run("fish", code, tmp_path).splitlines()]
    assert found == offered


def test_zsh_takes_its_script(tmp_path):
    (tmp_path / "script").write_text(script("zsh"))
    code = "compdef() { print $*; }; . ./script; whence -w _tachyon"
    assert run("zsh", code, tmp_path).splitlines() == ["_tachyon tachyon", "_tachyon: function"]
