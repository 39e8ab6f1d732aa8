# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Damaged, foreign and hostile files: each is refused as patch_corrupt or patch_unsupported; nothing else is raised."""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patching import compile_program, make_patch

from module_utils._engine.image import Image
from module_utils._errors import LivepatchError
from module_utils._patch.manifest import parse_manifest
from module_utils._patch.reader import MOST_FILE_BYTES, parse_patch, read_patch_file
from module_utils._patch.seal import SIZE, sealed, unsealed

PROGRAM = """
#include <stdio.h>
__attribute__((noinline)) int helper(int x) { return x + 1; }
__attribute__((noinline)) int answer(const char *text) { return helper(*text); }
int main(int count, char **words) { return answer(words[0]); }
"""
FIXED = """
#include <string.h>
extern int helper(int);
static int calls;
int answer(const char *text) { calls++; return helper((int)strlen(text)) + calls; }
"""
REFUSED = ("patch_corrupt", "patch_unsupported")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("patch")
    make_patch(folder, compile_program(folder, "program", PROGRAM), FIXED, ["answer"])
    return unsealed((folder / "fix.lpatch").read_bytes())


def _refusal(raw: bytes) -> str:
    """The code with which these bytes are refused, by the reader or when they are laid out; "" when they are not."""
    try:
        patch = parse_patch(raw)
        Image(patch, 4096).linked(0x400000, {reference.symbol: 0x401000 for reference in patch.manifest.references})
    except LivepatchError as error:
        return error.code
    return ""


def test_the_whole_file_is_read(raw: bytes) -> None:
    """The file that the other tests damage is good, and says of itself what it is."""
    assert _refusal(raw) == ""
    assert [function.name for function in parse_patch(raw).manifest.functions] == ["answer"]


def test_truncated(raw: bytes) -> None:
    """Cut off at every 64th byte."""
    for size in range(0, len(raw) - 64, 64):
        assert _refusal(raw[:size]) == "patch_corrupt", size


def test_bits_of_the_headers_flipped(raw: bytes) -> None:
    """Each bit of the ELF header, every third of all section headers: refused, or harmless; nothing else is raised."""
    table, (size, count) = struct.unpack_from("<Q", raw, 40)[0], struct.unpack_from("<HH", raw, 58)
    bits = list(range(8 * 64)) + list(range(8 * table, 8 * (table + size * count), 3))
    found = set()
    for bit in bits:
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        found.add(_refusal(bytes(damaged)))
    assert found <= {"", "no_room_near_object", *REFUSED}
    assert "patch_corrupt" in found


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_any_bytes_flipped(raw: bytes, data: st.DataObject) -> None:
    """Some bytes anywhere replaced by others."""
    damaged = bytearray(raw)
    for _turn in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    assert _refusal(bytes(damaged)) in ("", "no_room_near_object", *REFUSED)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_behind_an_elf_header(raw: bytes, tail: bytes) -> None:
    """An ELF header and then anything."""
    assert _refusal(raw[:64] + tail) == "patch_corrupt"


def test_foreign_files(tmp_path: Path) -> None:
    """Programs, scripts, nothing, and too much."""
    for path in (sys.executable, "/etc/passwd", "/dev/null"):
        with pytest.raises(LivepatchError) as caught:
            read_patch_file(path)
        assert caught.value.code == "patch_corrupt"
    huge = tmp_path / "huge"
    with open(huge, "wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(LivepatchError) as caught:
        read_patch_file(str(huge))
    assert caught.value.code == "patch_corrupt"
    assert "%d MiB" % (MOST_FILE_BYTES >> 20) in caught.value.message


def test_a_field_that_reaches_past_its_section(raw: bytes) -> None:
    """An eight-byte field in the last four bytes of a section would overwrite what lies behind."""
    patch = parse_patch(raw)
    last = patch.sections[patch.relocations[0].section].size - 4
    wide = replace(patch, relocations=(replace(patch.relocations[0], kind=1, offset=last),))
    with pytest.raises(LivepatchError) as caught:
        Image(wide, 4096)
    assert caught.value.code == "patch_corrupt"


def _manifest(raw: bytes) -> dict[str, object]:
    found: dict[str, object] = json.loads(parse_patch(raw).manifest.to_json())
    return found


def test_manifest_survives_its_own_text(raw: bytes) -> None:
    """What is written is read back, and gives the same bytes again."""
    manifest = parse_patch(raw).manifest
    assert parse_manifest(manifest.to_json()) == manifest
    assert parse_manifest(manifest.to_json()).to_json() == manifest.to_json()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)


@given(st.data(), _JSON)
@settings(max_examples=400, deadline=None)
def test_any_value_in_any_field_of_the_manifest(raw: bytes, data: st.DataObject, value: object) -> None:
    """Each field, at the top or in a record, replaced by any JSON value, or left out."""
    plain = _manifest(raw)
    at = plain
    name = data.draw(st.sampled_from(sorted(plain)))
    inner = plain[name]
    if isinstance(inner, list) and inner and isinstance(inner[0], dict) and data.draw(st.booleans()):
        at, name = inner[0], data.draw(st.sampled_from(sorted(inner[0])))
    if data.draw(st.booleans()):
        at[name] = value
    else:
        del at[name]
    assert _code_of_manifest(plain) in ("", *REFUSED)


def _code_of_manifest(plain: dict[str, object]) -> str:
    try:
        parse_manifest((json.dumps(plain, sort_keys=True, indent=2) + "\n").encode("ascii"))
    except LivepatchError as error:
        return error.code
    return ""


@pytest.mark.parametrize("text", ["\ud800", "a\0b"])
def test_names_that_no_file_can_hold(raw: bytes, text: str) -> None:
    """Half of a character, or a zero, in a name: refused before it reaches a look-up."""
    plain = _manifest(raw)
    references = plain["references"]
    assert isinstance(references, list)
    references[0]["name"] = text
    assert _code_of_manifest(plain) == "patch_corrupt"


def test_another_format(raw: bytes) -> None:
    """A later format is not called damaged: it says which one is known here."""
    plain = {**_manifest(raw), "format": 2}
    assert _code_of_manifest(plain) == "patch_unsupported"


def test_no_damage_to_a_whole_file_goes_unnoticed(raw: bytes) -> None:
    """Any single flipped bit, any cut: the seal is broken. (The other tests here go past the seal.)"""
    whole = sealed(raw)
    assert unsealed(whole) == raw
    for place in range(0, len(whole) * 8, 61):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(LivepatchError) as caught:
            unsealed(bytes(damaged))
        assert caught.value.code == "patch_corrupt"
    for length in [*range(0, len(whole), 97), len(raw), len(whole) - SIZE, len(whole) - 1]:
        with pytest.raises(LivepatchError):
            unsealed(whole[:length])
