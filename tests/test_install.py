"""What README.md and docs/cython.md say about installing, while an older project has the name in the public index."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tachyon

ROOT = Path(__file__).parent.parent
if not (ROOT / "README.md").is_file() or not (ROOT / "setup.py").is_file():
    pytest.skip("only in the source tree", allow_module_level=True)

README = (ROOT / "README.md").read_text()
CYTHON = (ROOT / "docs" / "cython.md").read_text()
# A project that needs us to be built. Its build says which of us it has found.
BACKEND = """
import pathlib, zipfile
import tachyon

def build_wheel(folder, *_):
    name = f"downstream-{tachyon.__version__}"
    with zipfile.ZipFile(pathlib.Path(folder, f"{name}-py3-none-any.whl"), "w") as wheel:
        metadata = f"Metadata-Version: 2.1\\nName: downstream\\nVersion: {tachyon.__version__}\\n"
        wheel.writestr(f"{name}.dist-info/METADATA", metadata)
        wheel.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{name}.dist-info/RECORD", "")
    return f"{name}-py3-none-any.whl"
"""


def blocks(text, title):
    section = re.search(rf"^## {title}\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)[1]
    return section, re.findall(r"^```(?:bash|toml)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def make_wheel(folder, version):
    folder.mkdir(parents=True, exist_ok=True)
    info = f"tachyon_ipc-{version}.dist-info"
    with zipfile.ZipFile(folder / f"tachyon_ipc-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tachyon/__init__.py", f"__version__ = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tachyon-ipc\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def clone(tmp_path):
    """Where the README's commands run: `dist` holds a wheel of ours, the index only the older project."""
    name = "tachyon_ipc-0.5.1-py3-none-any.whl"
    make_wheel(tmp_path / "index" / "tachyon-ipc", "0.5.1")
    (tmp_path / "index" / "tachyon-ipc" / "index.html").write_text(f'<a href="{name}">{name}</a>')
    make_wheel(tmp_path / "clone" / "dist", tachyon.__version__)
    (tmp_path / "my-project").mkdir()
    (tmp_path / "my-project" / "backend.py").write_text(BACKEND)
    return tmp_path / "clone"


def pip(clone, command, requirement):
    """Run one of the README's pip commands; returns which tachyon my-project was built with."""
    (clone.parent / "my-project" / "pyproject.toml").write_text(
        f'[build-system]\nrequires = ["{requirement}"]\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment |= {
        "PIP_INDEX_URL": (clone.parent / "index").as_uri(),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_TARGET": str(clone.parent / "installed"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        pytest.skip("no pip")
    command = command.replace("pip ", f"{shlex.quote(sys.executable)} -m pip ")
    done = subprocess.run(
        ["bash", "-ec", command], cwd=clone, env=environment, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = (clone.parent / "installed").glob("downstream-*.dist-info")
    return made.name.removeprefix("downstream-").removesuffix(".dist-info")


def test_the_readme_says_first_that_the_name_in_the_index_is_another_project():
    section, _ = blocks(README, "Install")
    assert section.strip().startswith("Not published yet: `pip install tachyon-ipc` installs an older project")
    assert "pip install tachyon-ipc\n" not in README + CYTHON + (ROOT / "docs" / "cpp.md").read_text()
    assert "README.md#install" in blocks(CYTHON, "Building")[0]


def test_the_first_commands_of_the_readme_are_demo_and_test():
    assert re.match(r"make demo .*\nmake test ", re.search(r"```bash\n(.*?)```", README, re.DOTALL)[1])


def test_from_a_clone_or_a_wheel():
    here, _ = blocks(README, "Install")[1]
    commands = [shlex.split(line, comments=True) for line in here.splitlines()]
    assert commands == [["pip", "install", "."], ["pip", "wheel", ".", "-w", "dist"]]


def test_a_project_that_is_built_with_ours_gets_ours(clone):
    section, (_, elsewhere) = blocks(README, "Install")
    (requirement,) = set(re.findall(r"`(tachyon-ipc>=\S+)`", section))
    assert requirement in blocks(CYTHON, "Building")[1][0]
    assert pip(clone, elsewhere, requirement) == tachyon.__version__


def test_without_the_bound_it_would_get_the_older_project(clone):
    _, (_, elsewhere) = blocks(README, "Install")
    assert pip(clone, elsewhere, "tachyon-ipc") == "0.5.1"


# ---- scripts/setup ---------------------------------------------------------------------------------------------------

# What had been said when it was called, and what for.
APT_GET = """#!/bin/sh
cp stderr said
echo "$@" >>asked
exit 1
"""


@pytest.fixture
def setup(tmp_path):
    """setup(purpose, **environment) → what it said until apt-get failed; not to root, and without a compiler."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (
        ("apt-get", APT_GET),
        ("sudo", '#!/bin/sh\nshift\nexec "$@"\n'),
        ("id", "#!/bin/sh\necho 1000\n"),
    ):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup", tmp_path / "scripts")

    def run(purpose="core", **environment):
        environment = {"CXX": "no-such-compiler", "PATH": f"{tools}:{os.environ['PATH']}"} | environment
        with (tmp_path / "stderr").open("w") as stderr:
            done = subprocess.run(
                [tmp_path / "scripts" / "setup", purpose],
                cwd=tmp_path,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                timeout=60,
            )
        assert done.returncode == 1
        return (tmp_path / "stderr").read_text()

    return run


def test_setup_says_what_it_is_about_to_install_and_how_to_avoid_it_before_it_does(setup, tmp_path):
    setup()
    before = (tmp_path / "said").read_text()
    assert re.fullmatch(
        r"setup: missing: (g\+\+.*); installing with: sudo -n apt-get install \1 \(.*TACHYON_APT=0\)\n", before
    )
    assert re.match(r"install -y .* g\+\+", (tmp_path / "asked").read_text())


def test_setup_that_may_not_ask_apt_says_what_is_missing(setup, tmp_path):
    assert re.match(r"setup: please install, as root: apt-get install g\+\+", setup(TACHYON_APT="0"))
    assert not (tmp_path / "asked").exists()


def test_a_compiler_with_words_of_its_own_is_found(setup):
    said = setup("wheels", ARCHS="nowhere", CXX=f"{shlex.quote(sys.executable)} -c", TACHYON_APT="0")
    assert re.search(r"apt-get install (make )?(cmake )?g\+\+-nowhere-linux-gnu", said)
