# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Headers, build-ids and dynamic tables: right for real objects, and no damage makes them raise anything new."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patching import compile_program

from module_utils._elf.build_id import file_build_id, memory_build_id, notes_build_id
from module_utils._elf.dynamic import DynamicTable, gnu_hash
from module_utils._elf.header import PT_DYNAMIC, NotElf, parse_header


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = "int zero; " + " ".join("int name_%d(void) { return %d; }" % (index, index) for index in range(300))
    folder = tmp_path_factory.mktemp("library")
    return compile_program(folder, "liblarge.so", source, "-shared", "-fPIC", "-Wl,--hash-style=gnu")


def _image(path: Path) -> bytes:
    """The object as it lies in memory at address 0."""
    raw = path.read_bytes()
    image = bytearray()
    for segment in parse_header(lambda at, size: raw[at : at + size]).loads():
        image.extend(bytes(segment.address + segment.size - len(image)))
        content = raw[segment.offset : segment.offset + segment.file_size]
        image[segment.address : segment.address + len(content)] = content
    return bytes(image)


def _reader(image: bytes):  # type: ignore[no-untyped-def]
    def read(address: int, size: int) -> bytes:
        if not 0 <= address <= address + size <= len(image):
            raise OSError(14, "nothing there")
        return image[address : address + size]

    return read


def test_build_id(library: Path) -> None:
    """From the file and from memory, as readelf tells it."""
    told = subprocess.run(["readelf", "-n", str(library)], check=True, stdout=subprocess.PIPE, text=True).stdout
    wanted = told.partition("Build ID: ")[2].split()[0]
    assert file_build_id(str(library)) == wanted
    assert memory_build_id(_reader(_image(library)), 0)[1:] == (0, wanted)


def test_every_symbol_is_found(library: Path) -> None:
    """A look-up by .gnu.hash finds each of 301 symbols where nm has it, and nothing that is not there."""
    image = _image(library)
    header = parse_header(_reader(image))
    dynamic = header.first(PT_DYNAMIC)
    assert dynamic is not None
    table = DynamicTable(_reader(image), 0, dynamic.address)
    told = subprocess.run(["nm", "-D", "--defined-only", str(library)], check=True, stdout=subprocess.PIPE, text=True)
    wanted = {line.split()[2]: int(line.split()[0], 16) for line in told.stdout.splitlines()}
    assert len(wanted) >= 301
    for name, address in wanted.items():
        found = table.look_up(name)
        assert found is not None, name
        assert (found.address, found.is_ifunc, found.is_tls) == (address, False, False)
    assert not any(table.look_up("nothing_%d" % index) for index in range(1000))


def test_gnu_hash() -> None:
    """The values that the format's description gives."""
    assert [gnu_hash(name) for name in (b"", b"printf", b"exit", b"syscall", b"flapenguin.me")] == [
        0x00001505,
        0x156B2BB8,
        0x7C967E3F,
        0xBAC212A0,
        0x8AE9F18E,
    ]


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_objects(library: Path, data: st.DataObject) -> None:
    """Bytes of the headers and the dynamic part replaced: NotElf or OSError, or an answer; nothing else, and soon."""
    image = bytearray(_image(library))
    for _turn in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, 1023) | st.integers(0, len(image) - 1))
        image[place] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
    read = _reader(bytes(image))
    try:
        header, bias, _build_id = memory_build_id(read, 0)
        dynamic = header.first(PT_DYNAMIC)
        if dynamic:
            table = DynamicTable(read, bias, bias + dynamic.address)
            table.look_up("name_7")
            table.needed()
            list(table.slots())
    except (NotElf, OSError):
        pass


@given(st.binary(max_size=200))
def test_any_notes(raw: bytes) -> None:
    """Any bytes as notes: an answer."""
    assert notes_build_id(raw) is None or isinstance(notes_build_id(raw), str)


@pytest.mark.parametrize("size", [0, 3, 16, 63, 64, 100, 300])
def test_truncated_files(tmp_path: Path, size: int) -> None:
    """A file that ends early is no object, or one without a build-id."""
    path = tmp_path / "cut"
    path.write_bytes(Path(sys.executable).read_bytes()[:size])
    try:
        assert file_build_id(str(path)) is None
    except NotElf:
        assert size < 800
