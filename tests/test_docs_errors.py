"""The example of docs/errors.md: a parent whose child never connects."""

import os
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs" / "errors.md"
if not DOCS.is_file():
    pytest.skip("only in the source tree", allow_module_level=True)


@pytest.mark.parametrize(
    ("body", "says"), [("os._exit(1)", "gave up"), ("Bus.connect(path, timeout=60).close()", "came")]
)
def test_a_parent_does_not_wait_for_a_child_that_has_died(spawn, tmp_path, path, body, says):
    (example,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    code = f"import os\nfrom tachyon import Bus\n\ndef produce(path):\n    {body}\n"
    (tmp_path / "producing.py").write_text(code)
    parent = spawn(
        f"sys.path.insert(0, {os.fspath(tmp_path)!r})\nimport multiprocessing\nfrom producing import produce\n"
        f"example = {example!r}\n"
        "try:\n    exec(example)\nexcept tachyon.TachyonTimeoutError:\n    say('gave up')\nelse:\n    say('came')\n",
        path,
    )
    parent.says(says)
    parent.ends()
