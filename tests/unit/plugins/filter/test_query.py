# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The filter cgl.livepatch.query answers JMESPath over the facts, and says clearly when it cannot."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from host_facts import facts, patch_in_process, process

from ansible_collections.cgl.livepatch.plugins.filter import query as plugin

KNOWN = facts(
    {"fix": ("aa", [])}, [process(7, ["aa"], [patch_in_process("fix", state="loaded")]), process(8, ["bb"], [])]
)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("schema", 1),
        ("processes[].pid", [7, 8]),
        ("processes[?patches[?state=='loaded']].pid | [0]", 7),
        ("patches.fix.build_id", "aa"),
        ("patches.nothing", None),
    ],
)
def test_it_answers(expression: str, expected: Any) -> None:
    assert plugin.FilterModule().filters()["query"](KNOWN, expression) == expected


def test_functions_of_jmespath_take_ansibles_own_types() -> None:
    loaded = DataLoader().load("{names: [greet, serve], count: 2, share: 0.5, sure: true, none: null}")
    assert loaded["names"][0].__class__ is not str
    assert plugin.query(loaded, "names[?starts_with(@, 'gr')] | [0]") == "greet"
    assert plugin.query(loaded, "join(',', names)") == "greet,serve"
    assert plugin.query(loaded, "[abs(count), share, sure, none]") == [2, 0.5, True, None]


def test_a_wrong_expression_is_shown() -> None:
    with pytest.raises(AnsibleError, match="cannot evaluate 'processes\\['"):
        plugin.query(KNOWN, "processes[")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "IMPORT_ERROR", ImportError("No module named 'jmespath'"))
    with pytest.raises(AnsibleError, match="needs the Python library jmespath"):
        plugin.query(KNOWN, "schema")
