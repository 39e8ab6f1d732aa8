# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules in an archive are compiled once, and are in every other way what they would be without that."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

from module_utils import _compile_once

HERE = Path(_compile_once.__file__)
TWO = """
from .. import plain
missing = None
try:
    from . import nothing
except ImportError as error:
    missing = str(error)
"""
MODULES = {
    "__init__.py": "",
    HERE.name: HERE.read_text(),
    "one.py": "from .within import two\nfrom . import plain\n",
    "plain.py": "def fail():\n    raise ValueError('here')\n",
    "within/__init__.py": "from __future__ import annotations\n",
    "within/two.py": TWO,
}
PROGRAM = """
import collections, inspect, json, sys, traceback
compiled = collections.Counter()
sys.addaudithook(lambda event, given: compiled.update([given[1]]) if event == "compile" else None)
%s
from package import one
try:
    one.plain.fail()
except ValueError:
    told = traceback.format_exc()
two = one.two
print(json.dumps({
    "compiled": {str(name).partition(".zip/")[2]: n for name, n in compiled.items() if ".zip/" in str(name)},
    "told": told, "source": inspect.getsource(one.plain.fail), "missing": two.missing,
    "data": two.__spec__.loader.get_data(two.__spec__.origin).decode(),
    "names": [two.__name__, two.__package__, two.__spec__.name, two.__file__.partition(".zip/")[2]],
}))
"""


def _run(archive: Path, first: str) -> dict[str, object]:
    program = "import sys; sys.path.insert(0, %r)\n" % str(archive) + PROGRAM % first
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_each_is_compiled_once_and_is_what_it_was(tmp_path: Path) -> None:
    """Names, files, sources, tracebacks and modules that are missing are the same with it and without."""
    archive = tmp_path / "sent.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for name, content in MODULES.items():
            made.writestr("package/" + name, content)
    found, plain = _run(archive, "from package import _compile_once"), _run(archive, "")
    names = {"package/" + name for name in MODULES if name not in ("__init__.py", HERE.name)}
    compiled, before = found.pop("compiled"), plain.pop("compiled")
    assert isinstance(compiled, dict)
    assert isinstance(before, dict)
    assert {name: compiled[name] for name in names} == dict.fromkeys(names, 1)
    assert set(before) >= names  # as often as this Python does it
    assert found == plain
    assert "raise ValueError('here')" in str(found["told"])
