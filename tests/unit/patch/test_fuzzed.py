# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The short run of the fuzzer: every input of the kept corpus, and some thousand mutations of them and of the seeds.

What is fuzzed, and what counts as a finding: tests/fuzz/targets.py. The long run: make fuzz (docs/fuzzing.md).
"""

from __future__ import annotations

import random
import resource
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from module_utils._ptrace.watchdog import watched

sys.path.append(str(Path(__file__).resolve().parents[2] / "fuzz"))

from kept_inputs import kept
from mutations import MUTATORS
from seeds import seeds
from targets import TARGETS, Finding, must

MOST_MEMORY, MOST_SECONDS, MUTATIONS = 1 << 30, 60, 3000


@pytest.fixture(scope="module", name="good")
def fixture_good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    return seeds(tmp_path_factory.mktemp("seeds"))


def _some_bytes(raw: bytes, most: int, dice: random.Random) -> bytes:
    """What libFuzzer's own mutations do, in short."""
    changed = bytearray(raw or b"\0")
    for _turn in range(dice.randint(1, 4)):
        at = dice.randrange(len(changed))
        if not dice.randrange(4):
            del changed[at : at + dice.randrange(16)]
            changed = changed or bytearray(1)
        elif not dice.randrange(4):
            changed[at:at] = dice.randbytes(dice.randrange(8))
        else:
            changed[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, changed[at] ^ 1 << dice.randrange(8)))
    return bytes(changed[:most])


def _in_bounds(work: Callable[[], None]) -> None:
    """Run `work` with bounded memory and processor time, in a process of its own."""

    def bounded(tell: Callable[[Any], None]) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
        work()
        tell("done")

    result = watched(bounded)
    assert (result.told, result.died) == (["done"], False)


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_the_corpus_and_its_neighbours(good: dict[str, list[bytes]], target: str) -> None:
    """Nothing else than a refusal comes of any of them."""
    inputs, dice = [*good[target], *kept(target)], random.Random(20261122)
    assert len(inputs) > len(good[target])
    mutate = MUTATORS.get(target)

    def plain(raw: bytes, most: int) -> bytes:
        return _some_bytes(raw, most, dice)

    def work() -> None:
        for one in inputs:
            TARGETS[target](one)
        for _turn in range(MUTATIONS):
            one = dice.choice(inputs)
            one = mutate(one, dice, plain) if mutate and dice.randrange(4) else plain(one, 4096)
            try:
                TARGETS[target](one)
            except BaseException as error:
                raise AssertionError("%s: %r: %s" % (target, error, one.hex())) from error

    _in_bounds(work)


def test_a_finding_is_found() -> None:
    """The targets can fail."""
    with pytest.raises(Finding):
        must(False, "it is not so")
