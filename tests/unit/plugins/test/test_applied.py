# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The test cgl.livepatch.applied is true only when every process with the object has the patch, active and whole."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleError
from host_facts import facts, patch_in_process, process

from ansible_collections.cgl.livepatch.plugins.test import applied as plugin

applied = plugin.applied

BOUND = {"fix": ("aa", ["CVE-2026-1"])}
GOOD = process(1, ["aa", "cc"], [patch_in_process("fix")])


def test_ansible_finds_it_by_its_name() -> None:
    assert plugin.TestModule().tests() == {"applied": applied}


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (process(2, ["aa"], [patch_in_process("fix")]), True),
        (process(2, ["bb"], []), True),
        (process(2, ["aa"], []), False),
        (process(2, ["aa"], [patch_in_process("fix", state="loaded")]), False),
        (process(2, ["aa"], [patch_in_process("fix", verified=False)]), False),
        (process(2, ["aa"], [patch_in_process("fix", proof="claim")]), False),
        (process(2, ["aa"], [patch_in_process("other")]), False),
    ],
)
def test_one_process_decides(other: dict[str, Any], expected: bool) -> None:
    assert applied(facts(BOUND, [GOOD, other]), "fix") is expected


def test_a_patch_nobody_has_is_not_applied() -> None:
    assert applied(facts({}, [process(1, ["aa"], [])]), "fix") is False


def test_only_the_named_processes_are_asked() -> None:
    known = facts(BOUND, [GOOD, process(2, ["aa"], [])])
    assert applied(known, "fix", pids=[1]) is True
    assert applied(known, "fix", pids=[1, 999]) is True
    assert applied(known, "fix", pids=[1, 2]) is False
    assert applied(known, "fix", pids=[999]) is False


def test_facts_that_cannot_answer_are_an_error() -> None:
    with pytest.raises(AnsibleError, match="scan: affected"):
        applied(facts(BOUND, [GOOD], scan="patched"), "fix")
    with pytest.raises(AnsibleError, match="livepatch_facts"):
        applied({}, "fix")
    with pytest.raises(AnsibleError, match="schema 2"):
        applied(dict(facts(BOUND, [GOOD]), schema=2), "fix")
