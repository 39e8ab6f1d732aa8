# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The test cgl.livepatch.compliant claims nothing without proof."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleError
from host_facts import facts, patch_in_process, process

from ansible_collections.cgl.livepatch.plugins.test import compliant as plugin

compliant = plugin.compliant

CVE = "CVE-2026-1"
# Two patches for the CVE on one object, one on another, and one for another CVE.
BOUND = {
    "fix": ("aa", [CVE]),
    "fix-2": ("aa", [CVE, "CVE-2026-2"]),
    "fix-lib": ("bb", [CVE]),
    "else": ("aa", ["CVE-2026-3"]),
}
FIXED = process(1, ["aa"], [patch_in_process("fix")])
FIXED_LIBRARY = process(2, ["bb"], [patch_in_process("fix-lib")])


def test_ansible_finds_it_by_its_name() -> None:
    assert plugin.TestModule().tests() == {"compliant": compliant}


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (process(3, ["aa"], [patch_in_process("fix-2")]), True),
        (process(3, ["cc"], []), True),
        (process(3, ["aa"], []), False),
        (process(3, ["bb"], []), False),
        (process(3, ["aa"], [patch_in_process("fix", state="loaded")]), False),
        (process(3, ["aa"], [patch_in_process("fix", verified=False)]), False),
        (process(3, ["aa"], [patch_in_process("fix", proof="claim")]), False),
        (process(3, ["aa"], [patch_in_process("else")]), False),
        # The patch for one object proves nothing about the other.
        (process(3, ["aa", "bb"], [patch_in_process("fix")]), False),
        (process(3, ["aa", "bb"], [patch_in_process("fix"), patch_in_process("fix-lib")]), True),
    ],
)
def test_one_process_decides(other: dict[str, Any], expected: bool) -> None:
    assert compliant(facts(BOUND, [FIXED, FIXED_LIBRARY, other]), CVE) is expected


@pytest.mark.parametrize(("over", "expected"), [("", True), ("fix", True), ("fix-2", True), ("else", False)])
def test_what_covers_it_must_fix_it_too(over: str, expected: bool) -> None:
    patch = {**patch_in_process("fix"), "functions": [{"name": "answer", "redirected_by": over}]}
    assert compliant(facts(BOUND, [process(1, ["aa"], [patch])]), CVE) is expected


def test_case_does_not_matter() -> None:
    assert compliant(facts(BOUND, [FIXED]), "cve-2026-1") is True


def test_nothing_known_is_not_compliant() -> None:
    assert compliant(facts({}, []), CVE) is False
    assert compliant(facts({}, [process(1, ["aa"], [])]), CVE) is False
    assert compliant(facts({"else": BOUND["else"]}, [FIXED]), CVE) is False


def test_what_could_not_be_looked_at_is_not_compliant() -> None:
    assert compliant(facts(BOUND, [FIXED], unreadable=1), CVE) is False
    assert compliant(facts(BOUND, [FIXED], scan="patched"), CVE) is False


def test_no_facts_are_an_error() -> None:
    with pytest.raises(AnsibleError, match="livepatch_facts"):
        compliant(None, CVE)
