# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""No patch, whoever signed it, can name an address outside the object that it is bound to."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patching import Running, compile_program, livepatch_mappings, make_patch, symbols
from snapshots import snapshot

from module_utils._elf.build_id import memory_build_id
from module_utils._engine.activate import Limits
from module_utils._engine.image import Image
from module_utils._engine.inside_object import check_fields, check_places
from module_utils._engine.operations import activate_patch, load_patch
from module_utils._engine.region import describe, find_region, find_regions, header
from module_utils._errors import LivepatchError
from module_utils._patch.content import Patch
from module_utils._patch.manifest import ChangedValue, ColdCode, Manifest, Reference, parse_manifest
from module_utils._process.objects import MappedObject, mapped_objects
from module_utils._process.process import Process
from module_utils._process.selection import Selection

PROGRAM = """
#include <stdio.h>
#include <string.h>
long level = 7;
long other[64] = {1};
const long constant[4] = {1, 2, 3, 4};
__attribute__((noinline, noipa)) long answer(const char *text) {
    return (long)strlen(text) + level + other[3] + constant[1];
}
int main(void) {
    char line[64];
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) { printf("%ld\\n", answer(line)); fflush(stdout); }
    return 0;
}
"""
FIXED = """
#include <string.h>
extern long level, other[64];
static long calls, *const there[] = {&level, &other[2]};
long answer(const char *text) { calls++; return *there[calls & 1] + (long)strlen(text) + other[5]; }
"""
PF_R, PF_W, PF_X = 4, 2, 1


@pytest.fixture(scope="module", name="made")
def fixture_made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Patch]:
    folder = tmp_path_factory.mktemp("inside")
    program = compile_program(folder, "program", PROGRAM)
    offset, size = symbols(program)["level"]
    value = ChangedValue("level", offset, (7).to_bytes(size, "little").hex(), (8).to_bytes(size, "little").hex())
    return program, make_patch(folder, program, FIXED, ["answer"], data=(value,), consistency="atomic")


@pytest.fixture(scope="module", name="target")
def fixture_target(made: tuple[Path, Patch]) -> MappedObject:
    """The object as a process has it."""
    program, patch = made
    with Running(program) as running, Process(running.pid) as process:
        objects = mapped_objects(process.memory, process.maps())
        found = next(one for one in objects if one.build_id == patch.manifest.object.build_id)
        assert memory_build_id(process.memory.read, found.start)[1] == found.bias
        return found


def _with(patch: Patch, **changes: Any) -> Patch:
    return dataclasses.replace(patch, manifest=dataclasses.replace(patch.manifest, **changes))


def _refused(made: tuple[Path, Patch], patch: Patch) -> str:
    """The code with which loading this is refused; nothing of the process is changed then."""
    program, _patch = made
    with Running(program) as running:
        before = snapshot(running.pid)
        (outcome,) = load_patch(patch, Selection(pids=(running.pid,))).outcomes
        if outcome.error:
            assert snapshot(running.pid) == before
            assert not livepatch_mappings(running.pid)
        return outcome.error["code"] if outcome.error else ""


def test_the_patch_itself_is_good(made: tuple[Path, Patch], target: MappedObject) -> None:
    """What the others change is loaded as it is."""
    assert _refused(made, made[1]) == ""
    check_places(target, made[1].manifest)


OUTSIDE = (1 << 40, (1 << 47) - 4096)


@pytest.mark.parametrize("at", [*OUTSIDE, "end", "before"])
@pytest.mark.parametrize("what", ["function", "cold", "data", "reference", "slot", "data in code", "function in data"])
def test_places_outside(made: tuple[Path, Patch], target: MappedObject, what: str, at: Any) -> None:
    """Each kind of place: far away, right behind the object's last segment, in the gap before; or in the wrong part."""
    patch, manifest = made[1], made[1].manifest
    last = target.header.loads()[-1]
    if at == "end":
        at = last.address + last.size
    elif at == "before":
        at = last.address - 1
    code = next(one for one in target.header.loads() if one.flags & PF_X)
    (function,), (value,) = manifest.functions, manifest.data
    wrong = {
        "function": {"functions": (dataclasses.replace(function, offset=at),)},
        "cold": {"cold": (ColdCode("answer.cold", at, 8),)},
        "data": {"data": (dataclasses.replace(value, offset=at),)},
        "reference": {"references": tuple(dataclasses.replace(one, offset=at) for one in manifest.references)},
        "slot": {"references": (*manifest.references, Reference("x", "external", "x", slot=at))},
        "data in code": {"data": (dataclasses.replace(value, offset=code.address),)},
        "function in data": {"functions": (dataclasses.replace(function, offset=last.address),)},
    }[what]
    assert _refused(made, _with(patch, **wrong)) == "patch_corrupt"


@pytest.mark.parametrize("addend", [1 << 20, -(1 << 20), 1 << 40, -(1 << 62)])
def test_fields_that_lead_away(made: tuple[Path, Patch], addend: int) -> None:
    """A symbol and a long way from it is a place outside: of the object, of the patch, or of another object."""
    patch = made[1]
    for index, entry in enumerate(patch.relocations):
        changed = list(patch.relocations)
        changed[index] = dataclasses.replace(entry, addend=addend)
        image = Image(patch, 4096)
        if image.has_symbol(entry.symbol) and 0 <= image.symbol(entry.symbol) + addend < image.size:
            continue
        assert _refused(made, dataclasses.replace(patch, relocations=tuple(changed))) == "patch_corrupt", entry


@pytest.mark.parametrize("kind", ["data", "code"])
def test_a_process_that_invents_a_place(made: tuple[Path, Patch], kind: str) -> None:
    """A program that says of itself that another place is to be changed when the patch is activated: it is not."""
    program, patch = made
    with Running(program) as running, Process(running.pid) as process:
        chosen = Selection(pids=(running.pid,))
        load_patch(patch, chosen)
        region = find_region(find_regions(process.memory, process.maps()), "fix")
        assert region is not None
        stack = next(one for one in process.maps() if one.path == "[stack]")
        place = stack.end - 64
        plain = json.loads(describe(region))
        site = next(one for one in plain["sites"] if (one[1] == "data") == (kind == "data"))
        site[2], site[3] = place, process.memory.read(place, len(site[3]) // 2).hex()
        site[5] = place if kind == "code" else site[5]
        description = json.dumps(plain, sort_keys=True).encode()
        process.memory.write(region.address, header(region.address, description, region.mutable) + description)
        before = process.memory.read(stack.end - 256, 256)
        (outcome,) = activate_patch("fix", chosen, Limits(timeout=1.0)).outcomes
        assert outcome.error is not None
        assert (outcome.error["code"], outcome.changed) == ("object_modified", False)
        assert process.memory.read(stack.end - 256, 256) == before


_NUMBERS = st.integers(0, (1 << 47) - 1) | st.sampled_from([0, 1, 4095, 4096, (1 << 47) - 1])


@given(st.data())
@settings(max_examples=1000, deadline=None)
def test_any_field_changed(made: tuple[Path, Patch], target: MappedObject, data: st.DataObject) -> None:
    """Every number of the manifest, every field of the code: refused, or each place lies inside its object."""
    patch = made[1]
    plain = json.loads(patch.manifest.to_json())
    rows = [row for name in ("functions", "data", "references", "cold") for row in plain[name]]
    for _turn in range(data.draw(st.integers(1, 3))):
        row = data.draw(st.sampled_from(rows))
        name = data.draw(st.sampled_from([key for key in row if isinstance(row[key], int)] or ["name"]))
        if name != "name":
            near = [segment.address + delta for segment in target.header.loads() for delta in (-8, -1, 0, segment.size)]
            row[name] = data.draw(_NUMBERS | st.sampled_from([max(0, one) for one in near]))
    entry = data.draw(st.sampled_from(patch.relocations))
    changed = dataclasses.replace(
        entry, addend=data.draw(st.just(entry.addend) | st.integers(-(1 << 63), (1 << 63) - 1))
    )
    relocations = tuple(changed if one is entry else one for one in patch.relocations)
    with contextlib.suppress(LivepatchError):
        manifest = parse_manifest((json.dumps(plain, sort_keys=True, indent=2) + "\n").encode())
        check_places(target, manifest)
        found = dataclasses.replace(patch, manifest=manifest, relocations=relocations)
        check_fields(target, found, Image(found, 4096))
        _inside(manifest, target)


def _inside(manifest: Manifest, target: MappedObject) -> None:
    """Asked byte by byte at both ends, of the segments alone."""
    places = [(one.offset, one.size, PF_X) for one in (*manifest.functions, *manifest.cold)]
    places += [(one.offset, len(one.old) // 2, PF_W) for one in manifest.data]
    places += [(one.offset, 1, 0) for one in manifest.references if one.kind == "object"]
    places += [(one.slot, 8, 0) for one in manifest.references if one.kind != "object" and one.slot]
    for offset, size, flags in places:
        assert any(
            segment.flags & flags == flags
            and segment.address <= offset
            and offset + size - 1 < segment.address + segment.size
            for segment in target.header.loads()
        )
