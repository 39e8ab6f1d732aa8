# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Turns: waves as serial has them, and never more members of a redundancy group than may be worked on at once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from ansible.errors import AnsibleError
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.cgl.livepatch.plugins.plugin_utils.turns import groups, turns, waves


def _hosts(count: int) -> list[str]:
    return ["h%d" % number for number in range(count)]


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (200, [1, "10%", "100%"], [1, 20, 179]),
        (4, [1, "10%", "100%"], [1, 1, 2]),
        (7, "2,50%", [2, 3, 2]),
        (5, 2, [2, 2, 1]),
        (3, ["100%"], [3]),
        (3, [], [3]),
        (0, [1], []),
    ],
)
def test_waves_are_cut_as_serial_does(count: int, sizes: Any, expected: list[int]) -> None:
    cut = waves(_hosts(count), sizes)
    assert [len(wave) for wave in cut] == expected
    assert [host for wave in cut for host in wave] == _hosts(count)


@pytest.mark.parametrize("size", [0, "0%", -1, "x", 1.5, True, "", None])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(AnsibleError, match="livepatch_waves"):
        waves(_hosts(3), [size])


_GROUPED = st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.integers(1, 4)), min_size=1, max_size=30)
_SIZES = st.lists(st.one_of(st.integers(1, 9), st.sampled_from(["10%", "34%", "100%"])), max_size=3)


@given(_GROUPED, _SIZES, st.sets(st.integers(0, 29)))
def test_no_turn_has_too_many_of_a_group_and_every_host_has_one(
    drawn: list[tuple[str, int]], sizes: list[Any], unfinished: set[int]
) -> None:
    sizes_of = Counter(name for name, _number in drawn)
    hostvars: dict[str, dict[str, Any]] = {
        "h%d" % at: {"livepatch_redundancy_group": name, "livepatch_at_once": number}
        for at, (name, number) in enumerate(drawn)
        if name == "" or sizes_of[name] > 1
    }
    known = groups(hostvars)
    first = ["h%d" % at for at in unfinished]
    planned = turns(list(hostvars), sizes, known, first)
    assert sorted(host for turn in planned for host in turn.hosts) == sorted(hostvars)
    assert [turn.wave for turn in planned] == sorted(turn.wave for turn in planned)
    for group in known.values():
        assert 1 <= group.at_once < len(group.members)
        assert all(len(set(turn.hosts) & set(group.members)) <= group.at_once for turn in planned)
    # What a dead run left comes in the earliest waves.
    wave_of = {host: turn.wave for turn in planned for host in turn.hosts}
    left, others = set(first) & set(wave_of), set(wave_of) - set(first)
    assert not left or not others or max(wave_of[host] for host in left) <= min(wave_of[host] for host in others)


def test_one_alone_is_no_group_and_nonsense_is_refused() -> None:
    with pytest.raises(AnsibleError, match="only member of the redundancy group a"):
        groups({"h1": {"livepatch_redundancy_group": "a"}, "h2": {"livepatch_redundancy_group": "b"}})
    with pytest.raises(AnsibleError, match="name of one group"):
        groups({"h1": {"livepatch_redundancy_group": ["a"]}})
    for number in (0, "50%", -1, 1.5, True, None):
        with pytest.raises(AnsibleError, match="livepatch_at_once of h1"):
            groups({"h1": {"livepatch_redundancy_group": "a", "livepatch_at_once": number}})
