# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Narrowed facts tell of what matters, and say of what they tell."""

from __future__ import annotations

from typing import Any

from module_utils._engine.narrow_facts import narrow


def _process(pid: int, *parts: tuple[str, str], patched: bool = False) -> dict[str, Any]:
    objects = [{"path": path, "build_id": build_id} for path, build_id in parts]
    return {"pid": pid, "objects": objects, "patches": [{"id": "fix"}] if patched else []}


def _facts(**about: Any) -> dict[str, Any]:
    processes = [
        _process(1, ("/bin/a", "aa"), ("/lib/c", "cc"), patched=True),
        _process(2, ("/bin/a", "a2"), ("/lib/c", "cc")),
        _process(3, ("/other/a", "aa")),
        _process(4, ("/other/a", "a3")),
        _process(5, ("/bin/x", "xx"), ("/lib/c", "cc")),
        _process(6, patched=True),
    ]
    return {"patches": {"fix": {"build_id": "aa", "object": "/bin/a"}}, "processes": processes, **about}


def _told(facts: dict[str, Any]) -> dict[int, list[str]]:
    return {fact["pid"]: [part["build_id"] for part in fact["objects"]] for fact in facts["processes"]}


def test_objects_of_patches_and_what_lies_in_their_place_stay() -> None:
    facts = _facts()
    narrow(facts, [])
    assert _told(facts) == {1: ["aa"], 2: ["a2"], 3: ["aa"], 4: ["a3"], 6: []}
    assert facts["objects"] == ["/bin/a", "/other/a", "aa"]


def test_objects_that_are_named_by_build_or_place_stay() -> None:
    facts = _facts()
    narrow(facts, ["cc", "/bin/x"])
    assert _told(facts)[5] == ["xx", "cc"]
    assert set(facts["objects"]) == {"/bin/a", "/other/a", "aa", "cc", "/lib/c", "/bin/x"}


def test_what_is_desired_matters_too() -> None:
    entry = {"build_id": "xx", "processes": {}, "paths": ["/bin/x"]}
    facts = _facts(patches={}, desired={"patches": {"fix-x": entry}})
    narrow(facts, [])
    assert _told(facts) == {1: [], 5: ["xx"], 6: []}
    assert facts["objects"] == ["/bin/x", "xx"]
