"""What is in the source distribution and in the wheel, and what setup.py refuses. Only in the source tree."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import tachyon

ROOT = Path(__file__).parent.parent

if not (ROOT / "setup.py").is_file():
    pytest.skip("only in the source tree", allow_module_level=True)
pytest.importorskip("Cython")
pytest.importorskip("setuptools", "77")


def git_files():
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a repository")
    files = {name for name in done.stdout.decode().split("\0") if name}
    return {name for name in files if (ROOT / name).is_file()}


def setup(*arguments, cwd=ROOT, code="", env=None):
    """Run setup.py, after `code`."""
    program = f"import runpy, sys\n{code}\nsys.argv = ['setup.py', *{arguments!r}]\nrunpy.run_path('setup.py')"
    command = [sys.executable, "-W", "ignore", "-c", program]
    environment = os.environ | (env or {})
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=100)


@pytest.fixture
def sources(tmp_path):
    """A copy of what git knows: building in the tree itself would leave traces."""
    copy = tmp_path / "sources"
    for name in git_files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    return copy


def test_the_source_distribution_holds_everything_and_nothing_that_was_built(sources, tmp_path):
    for made in (
        "tachyon/lib/libtachyon.a",
        "tachyon/include/tachyon/ring/ring.hpp",
        "tachyon/_bench.x.so",
        "tachyon/_tachyon.x.so",
        "build/x",
    ):
        (sources / made).parent.mkdir(parents=True, exist_ok=True)
        (sources / made).write_text("made")
    done = setup("sdist", "--dist-dir", tmp_path.as_posix(), cwd=sources)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {member.name.partition("/")[2] for member in tar if member.isfile()}
    generated = {"PKG-INFO", "setup.cfg"}
    assert {name for name in names - generated if not name.startswith("tachyon_ipc.egg-info/")} == git_files()


def test_a_wheel_takes_what_cxx_users_get_from_the_prefix_it_is_told(sources, tmp_path):
    # As scripts/wheels does it; the module itself stays out, for speed.
    prefix = tmp_path / "prefix"
    for name in ("include/tachyon/ours.hpp", "lib/libtachyon.a"):
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text("ours")
    code = "import setuptools.command.build_ext as b; b.build_ext.build_extensions = lambda self: None"
    env = {"TACHYON_PREFIX": str(prefix), "TACHYON_LIBRARY": str(prefix / "lib" / "libtachyon.a")}
    stale = sources / "tachyon" / "include" / "tachyon" / "stale.hpp"
    stale.parent.mkdir(parents=True)
    stale.write_text("of an editable install")
    done = setup("bdist_wheel", "--dist-dir", tmp_path.as_posix(), cwd=sources, code=code, env=env)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (name for name in names if name.endswith("dist-info/entry_points.txt"))
        assert archive.read(entry_points).decode().split() == [
            *("[cmake.root]", "tachyon", "=", "tachyon"),
            *("[console_scripts]", "tachyon", "=", "tachyon.cli.main:main"),
        ]
    assert {name for name in names if name.startswith(("tachyon/include/", "tachyon/lib/"))} == {
        "tachyon/include/tachyon/ours.hpp",
        "tachyon/lib/libtachyon.a",
    }
    assert {"tachyon/py.typed", "tachyon/_tachyon.pyi", "tachyon/cli/main.py"} <= names
    assert {f"tachyon/{name}.pxd" for name in ("__init__", "_tachyon", "libtachyon")} <= names
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)


FREE_THREADED = "import sysconfig; sysconfig.get_config_vars()['Py_GIL_DISABLED'] = 1"


def test_free_threaded_python_is_refused_with_a_reason():
    done = setup("--version", code=FREE_THREADED)
    assert done.returncode == 1
    assert "not been tested on free-threaded Python" in done.stderr
    assert "TACHYON_FREE_THREADED=1" in done.stderr


def test_but_not_from_those_who_insist():
    done = setup("--version", code=FREE_THREADED, env={"TACHYON_FREE_THREADED": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == tachyon.__version__


@pytest.mark.skipif(not shutil.which("nm") or not sys.platform.startswith("linux"), reason="no nm for ELF")
@pytest.mark.parametrize("name", ["_tachyon", "_bench"])
def test_a_module_exports_nothing_but_its_beginning(name):
    found = importlib.util.find_spec(f"tachyon.{name}")
    if found is None:
        pytest.skip(f"built without tachyon.{name}")
    module = Path(found.origin)
    listed = subprocess.run(["nm", "-D", "--defined-only", module], capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in listed.splitlines()}
    assert {name for name in names if not re.match(r"_(init|fini|edata|end|_bss_start)$", name)} == {f"PyInit_{name}"}
