# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process says of itself proves nothing: only bytes that are those of the patch this host knows do."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import pytest
from patching import Running, compile_program, make_patch

from module_utils._engine import proof
from module_utils._engine.activate import Limits
from module_utils._engine.facts import gather
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch
from module_utils._engine.proof import nothing_known
from module_utils._engine.region import Region, describe, find_region, find_regions, header, read_region
from module_utils._patch.content import Patch
from module_utils._process.process import Process
from module_utils._process.selection import Selection

PROGRAM = """
#include <stdio.h>
#include <string.h>
int level = 7;
__attribute__((noinline, noipa)) int answer(const char *text) { return (int)strlen(text) * 3 + level; }
int main(void) {
    char line[64];
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) { printf("%d\\n", answer(line)); fflush(stdout); }
    return 0;
}
"""
FIXED = """
#include <string.h>
extern int level;
static int calls;
static const char *const names[] = {"one", "two"};
int answer(const char *text) { calls++; return (int)strlen(names[calls & 1]) + (int)strlen(text) * 0 + level + 290; }
"""


@pytest.fixture(scope="module", name="made")
def fixture_made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Patch]:
    folder = tmp_path_factory.mktemp("proof")
    program = compile_program(folder, "program", PROGRAM)
    return program, make_patch(folder, program, FIXED, ["answer"])


def _fact(pid: int, *patches: Patch) -> dict[str, Any]:
    known = {patch.sha256: patch for patch in patches}
    facts = gather([], "patched", known.get)
    (fact,) = [one for one in facts["processes"] if one["pid"] == pid]
    (found,) = fact["patches"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("forms", [("byte", "jump"), ("jump",)])
def test_the_real_thing_is_proven_where_the_patch_is_known(made: tuple[Path, Patch], forms: tuple[str, ...]) -> None:
    """Loaded, active and loaded again, by either kind of switch: proven; where the patch is not known it is a claim."""
    program, patch = made
    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        load_patch(patch, chosen, forms=forms)
        for state in ("loaded", "active"):
            if state == "active":
                activate_patch("fix", chosen, Limits(timeout=2.0))
            found = _fact(running.pid, patch)
            assert (found["state"], found["verified"], found["proof"], found["reasons"]) == (state, True, "store", [])
            found = _fact(running.pid)
            assert (found["state"], found["verified"], found["proof"]) == (state, True, "claim")


def _rewritten(pid: int, change: Callable[[dict[str, Any]], None]) -> None:
    """What a program may do at any time: write its region anew, under a right digest."""
    with Process(pid) as process:
        region = find_region(find_regions(process.memory, process.maps()), "fix")
        assert region is not None
        plain = json.loads(describe(region))
        change(plain)
        description = json.dumps(plain, sort_keys=True).encode()
        process.memory.write(region.address, header(region.address, description, region.mutable) + description)
        assert read_region(process.memory, region.address) is not None


def _code_elsewhere(plain: dict[str, Any]) -> None:
    plain["sites"][0][6] += 16


@pytest.mark.parametrize(
    ("change", "verified"),
    [
        (lambda plain: plain.update(digests=plain["digests"][:1]), True),  # says less, and what it says is so
        (lambda plain: plain.update(digests=[]), False),
        (lambda plain: plain.update(sites=[]), False),
        (lambda plain: plain.update(version="2"), False),
        (lambda plain: plain["patch"].update(cves=["CVE-2026-0001"]), False),
        (lambda plain: plain["patch"].update(replaces=["another"]), False),
        (lambda plain: plain.update(object_start=plain["object_start"] + 4096), False),
        (_code_elsewhere, False),
    ],
)
def test_a_region_that_is_not_what_the_patch_makes(
    made: tuple[Path, Patch], change: Callable[[dict[str, Any]], None], verified: bool
) -> None:
    """A program that writes its description anew, under a right digest."""
    program, patch = made
    with Running(program) as running:
        load_patch(patch, Selection(pids=(running.pid,)))
        activate_patch("fix", Selection(pids=(running.pid,)), Limits(timeout=2.0))
        _rewritten(running.pid, change)
        found = _fact(running.pid, patch)
        assert (found["verified"], found["proof"], not found["reasons"]) == (verified, "store", verified)


def _digest_of(start: int, content: bytes) -> Callable[[dict[str, Any]], None]:
    def change(plain: dict[str, Any]) -> None:
        for part in plain["digests"]:
            if part[0] == start:
                part[2] = hashlib.sha256(content).hexdigest()

    return change


def test_new_code_that_was_changed(made: tuple[Path, Patch]) -> None:
    """Code, constants, slots or branches of the patch changed, and the digests with them: all is well, it says."""
    program, patch = made
    with Running(program) as running:
        load_patch(patch, Selection(pids=(running.pid,)))
        activate_patch("fix", Selection(pids=(running.pid,)), Limits(timeout=2.0))
        with Process(running.pid) as process:
            region = find_region(find_regions(process.memory, process.maps()), "fix")
            assert region is not None
            changed = 0
            for start, size, _digest in region.digests:
                before = process.memory.read(start, size)
                # Filling between branches belongs to nobody: only what is there for something.
                for at in (index for index in (0, before.find(b"\xe9"), size // 2) if before[index] not in b"\xcc\0"):
                    content = bytearray(before)
                    content[at] ^= 1
                    process.memory.write(start, bytes(content))
                    _rewritten(running.pid, _digest_of(start, bytes(content)))
                    claim, proof = _fact(running.pid), _fact(running.pid, patch)
                    assert (claim["verified"], claim["proof"]) == (True, "claim")
                    assert (proof["verified"], proof["proof"]) == (False, "store"), (hex(start), at)
                    changed += 1
                process.memory.write(start, before)
                _rewritten(running.pid, _digest_of(start, before))
            assert changed >= 2
            assert _fact(running.pid, patch)["verified"] is True


def test_the_rest_of_a_function_that_is_another(made: tuple[Path, Patch]) -> None:
    """The process says it is this build, and its function is another one behind the branch: not proven."""
    program, patch = made
    (function,) = patch.manifest.functions
    with Running(program) as running:
        load_patch(patch, Selection(pids=(running.pid,)))
        activate_patch("fix", Selection(pids=(running.pid,)), Limits(timeout=2.0))
        with Process(running.pid) as process:
            region = find_region(find_regions(process.memory, process.maps()), "fix")
            assert region is not None
            last = region.sites[0].entry + function.size - 1
            process.memory.write(last, bytes((process.memory.read(last, 1)[0] ^ 1,)))
        claim, proof = _fact(running.pid), _fact(running.pid, patch)
        assert (claim["verified"], proof["verified"], proof["proof"]) == (True, False, "store")


def _lie(pid: int) -> None:
    """Change new code of the patch, and the digest with it: all is well, the process says."""
    with Process(pid) as process:
        region = find_region(find_regions(process.memory, process.maps()), "fix")
        assert region is not None
        start, size, _digest = region.digests[-1] if len(region.digests) < 2 else region.digests[1]
        content = bytearray(process.memory.read(start, size))
        content[0] ^= 1
        process.memory.write(start, bytes(content))
    _rewritten(pid, _digest_of(start, bytes(content)))


def test_it_is_not_loaded_again_where_the_process_only_says_so(made: tuple[Path, Patch]) -> None:
    """Loading asks the same: a process that says it has the patch, and has other code there, is an error."""
    program, patch = made
    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        load_patch(patch, chosen)
        assert [(one.error, one.proof) for one in load_patch(patch, chosen).outcomes] == [(None, "store")]
        _lie(running.pid)
        (outcome,) = load_patch(patch, chosen).outcomes
        assert outcome.error is not None
        assert (outcome.error["code"], outcome.changed) == ("memory_mismatch", False)


@pytest.mark.parametrize("pretend", [True, False])
def test_it_is_not_activated_where_the_process_only_says_it_is_loaded(made: tuple[Path, Patch], pretend: bool) -> None:
    """Where the host knows the patch; elsewhere the process's word is all there is, and the result says so."""
    program, patch = made
    known = {patch.sha256: patch}.get
    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        load_patch(patch, chosen)
        for given, proof in ((known, "store"), (nothing_known, "claim")):
            (outcome,) = activate_patch("fix", chosen, Limits(timeout=2.0), known=given).outcomes
            assert (outcome.error, outcome.state, outcome.verified, outcome.proof) == (None, "active", True, proof)
        deactivate_patch("fix", chosen, Limits(timeout=2.0))
        _lie(running.pid)
        (outcome,) = activate_patch("fix", chosen, Limits(timeout=2.0), pretend, known).outcomes
        assert outcome.error is not None
        assert (outcome.error["code"], outcome.changed, outcome.state) == ("memory_mismatch", False, "loaded")
        assert _fact(running.pid, patch)["state"] == "loaded"


def test_two_regions_of_one_name_prove_nothing(made: tuple[Path, Patch], monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them may be the patch, and the other what would be switched over to."""
    program, patch = made
    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        load_patch(patch, chosen)
        found = find_regions

        def twice(*given: Any) -> list[Region]:
            return [one for region in found(*given) for one in (region, replace(region, address=region.address + 4096))]

        monkeypatch.setattr(proof, "find_regions", twice)
        (outcome,) = activate_patch("fix", chosen, Limits(timeout=2.0), known={patch.sha256: patch}.get).outcomes
        assert outcome.error is not None
        assert (outcome.error["code"], "several" in outcome.error["message"]) == ("memory_mismatch", True)
        assert _fact(running.pid, patch)["state"] == "loaded"
