# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/errors.md explains every error code, no other, and offers the remedy that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from module_utils._errors import REMEDIES

ROOT = Path(__file__).resolve().parents[2]
CODES = ROOT / "plugins" / "module_utils"
SECTIONS = dict(
    re.findall(
        r"^### (\S+)\n(.*?)(?=^#|\Z)", (ROOT / "docs" / "errors.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
)
# LivepatchError("code", ...), and the functions of the builder that refuse
RAISED = re.compile(r"\b(?:LivepatchError|Refusal|refuse|_refuse)\(\s*\"([a-z]+(?:_[a-z]+)*)\"")


def test_the_document_and_the_table_have_the_same_codes() -> None:
    assert sorted(SECTIONS) == sorted(REMEDIES)


@pytest.mark.parametrize("code", sorted(REMEDIES))
def test_a_code_is_explained(code: str) -> None:
    text = " ".join(SECTIONS.get(code, "").split())
    parts = re.fullmatch(r"- \*\*Meaning:\*\* (.+) - \*\*What was done:\*\* (.+) - \*\*Remedy:\*\* (.+)", text)
    assert parts
    assert parts.group(3) == " ".join(REMEDIES[code].split())


def test_every_code_that_is_raised_is_in_the_table() -> None:
    raised = {code for path in CODES.rglob("*.py") for code in RAISED.findall(path.read_text("utf-8"))}
    assert len(raised) > 20
    assert raised <= set(REMEDIES)
