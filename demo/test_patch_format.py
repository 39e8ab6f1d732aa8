# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/patch-format.md: its commands run on the demonstration's patch, and its tables name the manifest's fields."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MANUAL = (HERE.parent / "docs" / "patch-format.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stripped server, the patch for it, and what the manual's commands write, in their order."""
    place = tmp_path_factory.mktemp("patch-format")
    command = f"""
        cp -r {HERE}/server source && make -C source && strip -o desk source/desk &&
        {sys.executable} -m module_utils._build.command_line --name hide-cards \
            --source {HERE}/server --diff {HERE}/fix.diff \
            --build-command make --artifact desk --target "$PWD/desk" --cache "$PWD/cache" --dest hide-cards.lpatch
    """
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "plugins")}
    subprocess.run(["sh", "-euc", command], cwd=place, check=True, env=environment, capture_output=True, text=True)
    return place


def said(block: str, folder: Path) -> str:
    """What a block of the manual prints; nothing in it fails or complains."""
    done = subprocess.run(["sh", "-euc", block], cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_every_command_of_the_manual_shows_what_it_is_to_show(folder: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", MANUAL, re.DOTALL)
    header, manifest, fits, build_id, code, old_code = (said(block, folder) for block in blocks)
    assert "REL (Relocatable file)" in header
    assert " .livepatch " in header
    assert json.loads(manifest) == json.loads((folder / "manifest.json").read_text(encoding="ascii"))
    assert "['answer_question']" in fits
    assert fits.split()[0] == build_id.split()[-1]
    assert "<hide>:" in code
    assert "R_X86_64_PLT32" in code
    assert len(re.findall(r"^ +[0-9a-f]+:\t", old_code, re.MULTILINE)) > 20


def test_the_manual_names_every_field_and_no_other(folder: Path) -> None:
    said("objcopy --dump-section .livepatch=manifest.json hide-cards.lpatch /dev/null", folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="ascii"))
    tables = [set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", part, re.MULTILINE)))) for part in parts()]
    assert tables == [set(manifest), set(manifest["functions"][0]), set(manifest["references"][0])]


def parts() -> list[str]:
    """The manual's three parts that describe the manifest, a function and a reference."""
    manifest = MANUAL.partition("## The manifest")[2].partition("## Looking")[0]
    top, _heading, rest = manifest.partition("One entry of `functions`:")
    function, _heading, reference = rest.partition("One entry of `references`:")
    return [top, function, reference]
