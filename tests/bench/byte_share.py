# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Which share of the functions of real objects, as a running process maps them, can be switched by one byte.

The functions are those of .eh_frame, parts without a beginning (`NAME.cold`) left out; each is asked for by itself, of
the code that decides in earnest. What branches where, objdump says; jump tables are not looked at here (the builder
does). In how many registers arguments come the builder knows of every function that it replaces; here it is known where
the debug information is installed, or a build of the same code with it lies beside the stripped one.
"""

from __future__ import annotations

import bisect
import re
import struct
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

from elftools.elf.elffile import ELFFile

from module_utils._engine.branch.x86_64 import JUMP_BYTE, JUMP_SIZE, one_byte_jumps
from module_utils._engine.choose_switch import BYTE, Places, Switch, choose_switches
from module_utils._engine.free_space import FreeSpace
from module_utils._errors import LivepatchError
from module_utils._patch.manifest import ALL_ARGUMENTS, ReplacedFunction
from module_utils._process.link_map import executable_start
from module_utils._process.maps import Mapping
from module_utils._process.objects import MappedObject, mapped_objects
from module_utils._process.process import Process

HEADINGS = [
    "object",
    "functions",
    "at the entry %",
    "any site %",
    "arguments known %",
    "the entry's place, where it is not free: what is there",
]
CACHED = Path(__file__).resolve().parents[2] / ".cache/redis/stock"
DEBUG = Path("/usr/lib/debug/.build-id")
BUILT, BUILT_SERVER = CACHED.parent / "built", "*/redis/src/redis-server"
# A link to redis-check-rdb, which is what the process then maps.
SERVER = "usr/bin/redis-server"
OBJECTS = re.compile(r"(redis-check-rdb|libcrypto|libssl|libc|libstdc\+\+|libm|libgpg-error|python[0-9.]*)(?:[-.].*)?$")
_LIBRARIES = ("libcrypto.so.3", "libssl.so.3", "libstdc++.so.6", "libm.so.6", "libgpg-error.so.0")
_WAIT = (
    "import ctypes, ctypes.util, sys\n"
    "for name in sys.argv[1:]:\n"
    "    try: ctypes.CDLL(name)\n"
    "    except OSError: pass\n"
    "print('ready', flush=True); sys.stdin.read()"
)
_BRANCH = re.compile(r"^ *[0-9a-f]+:\t(?:\w+ )*(?:j\w+|call|loop\w*|xbegin)(?:,p[nt])? +([0-9a-f]+) <", re.MULTILINE)
# DW_CFA_advance_loc and its longer forms, DW_CFA_nop: what a function starts with; its parts start with a frame.
_ADVANCES = (0x00, 0x02, 0x03, 0x04)
_ROOM = 1 << 16
_PARAMETERS = ("DW_TAG_formal_parameter", "DW_TAG_unspecified_parameters")
_TRANSPARENT = ("DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type", "DW_TAG_restrict_type")


@dataclass(frozen=True)
class Code:
    """The code of one object: link-time `start` of .text, its bytes, its functions and where branches lead."""

    start: int
    text: bytes
    functions: list[tuple[int, int]]
    targets: list[int]


def read_code(path: str) -> Code:
    """The code of the object at `path`."""
    with Path(path).open("rb") as stream:
        elf = ELFFile(stream)
        text, frames = elf.get_section_by_name(".text"), elf.get_section_by_name(".eh_frame")
        assert text is not None
        assert frames is not None
        start, size = text["sh_addr"], text["sh_size"]
        functions = sorted(
            {(at, length) for at, length in _frames(frames.data(), frames["sh_addr"]) if start <= at < start + size}
        )
        content = text.data()
    listing = subprocess.run(
        ["objdump", "-d", "-w", "--no-show-raw-insn", "-j", ".text", path],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    return Code(start, content, functions, sorted({int(target, 16) for target in _BRANCH.findall(listing)}))


def _frames(data: bytes, address: int) -> Iterator[tuple[int, int]]:
    """(start, size) of each function in .eh_frame (LSB 5.0, 10.6); pointers are relative and of four bytes."""
    at = 0
    while at + 4 <= len(data):
        (length,) = struct.unpack_from("<I", data, at)
        if not length:
            break
        (back,) = struct.unpack_from("<I", data, at + 4)
        if back:
            augmentation = data[at + 4 - back + 9 : at + 4 - back + 13]
            if not augmentation.startswith(b"z") or b"R" not in data[at + 4 - back + 9 : at + 4 - back + 15]:
                raise ValueError("a frame at %#x whose pointers are of an unknown form" % (address + at))
            start, size = struct.unpack_from("<iI", data, at + 8)
            first = data[at + 17 + data[at + 16]]
            if first in _ADVANCES or first & 0xC0 == 0x40 or at + 17 + data[at + 16] >= at + 4 + length:
                yield address + at + 8 + start, size
        at += 4 + length


def argument_counts(path: Path) -> dict[int, int]:
    """By link-time address of a function: in how many integer registers arguments come at most (cf. argument_registers
    of the builder, which reads the same of single units).
    """
    found: dict[int, int] = {}
    with path.open("rb") as stream:
        for unit in ELFFile(stream).get_dwarf_info().iter_CUs():
            for die in unit.get_top_DIE().iter_children():
                if die.tag == "DW_TAG_subprogram" and "DW_AT_low_pc" in die.attributes:
                    found[die.attributes["DW_AT_low_pc"].value] = _argument_count(die)
    return found


def _argument_count(function: Any) -> int:
    known = function
    while "DW_AT_abstract_origin" in known.attributes or "DW_AT_specification" in known.attributes:
        origin = "DW_AT_abstract_origin" if "DW_AT_abstract_origin" in known.attributes else "DW_AT_specification"
        known = known.get_DIE_from_attribute(origin)
    parameters = [child for child in known.iter_children() if child.tag in _PARAMETERS]
    scalar = all(child.tag == _PARAMETERS[0] and _is_scalar(child) for child in parameters) and _is_scalar(known)
    return min(len(parameters), ALL_ARGUMENTS) if scalar else ALL_ARGUMENTS


def _is_scalar(die: Any) -> bool:
    """True for a declaration whose type comes in one register, or is void."""
    while "DW_AT_type" in die.attributes:
        die = die.get_DIE_from_attribute("DW_AT_type")
        if die.tag not in _TRANSPARENT:
            break
    else:
        return True
    size = die.attributes.get("DW_AT_byte_size")
    base = (
        die.tag in ("DW_TAG_base_type", "DW_TAG_enumeration_type") and size is not None and size.value in (1, 2, 4, 8)
    )
    return base or die.tag == "DW_TAG_pointer_type"


def with_debug_information(code: Code, build_id: str) -> Path | None:
    """The object's debug information, installed or among what the tests have built, if there is any."""
    installed = DEBUG / build_id[:2] / (build_id[2:] + ".debug")
    if installed.exists():
        return installed
    for path in sorted(BUILT.glob(BUILT_SERVER)) if BUILT.is_dir() else []:
        with path.open("rb") as stream:
            text = ELFFile(stream).get_section_by_name(".text")
            if text is not None and (text["sh_addr"], text.data()) == (code.start, code.text):
                return path
    return None


def replaced(code: Code, index: int, arguments: dict[int, int]) -> ReplacedFunction:
    """A function of the object as a patch would name it."""
    start, size = code.functions[index]
    at = bisect.bisect_right(code.targets, start)
    inside = code.targets[at] - start if at < len(code.targets) else size
    entry = code.text[start - code.start : start - code.start + 16]
    return ReplacedFunction(
        "f", start, size, "", entry.hex(), min(size, inside), "f", 0, arguments.get(start, ALL_ARGUMENTS)
    )


def share(name: str, found: MappedObject, mappings: list[Mapping], executable_end: int) -> list[str]:
    """The table's row for one object."""
    code = read_code(found.path)
    space = FreeSpace(mappings, executable_end)
    base = space.near(found, _ROOM, False)
    space.take(base, base + _ROOM)
    debug = with_debug_information(code, found.build_id)
    known = argument_counts(debug) if debug else {}
    at_entry = anywhere = informed = 0
    why: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for index in range(len(code.functions)):
        function = replaced(code, index, {})
        switch = _switch(function, base, found.bias, space)
        anywhere += switch is not None
        informed += _switch(replaced(code, index, known), base, found.bias, space) is not None
        entry = bytes.fromhex(function.entry)
        places = [found.bias + function.offset + len(new) + far for new, far in one_byte_jumps(entry)]
        plain = len(places) < 3 and any(Places(space).take(place, JUMP_SIZE) for place in places)
        at_entry += plain
        if not plain:
            why[_in_the_way(entry, places, mappings, found)] += 1
        if switch is None:
            left[_in_the_way(entry, places, mappings, found)] += 1
    total = len(code.functions)
    reasons = ["%s %d, %d stay" % (reason, count, left[reason]) for reason, count in why.most_common()]
    shares = ["%.1f" % (100 * one / total) for one in (at_entry, anywhere, informed)]
    return [name, str(total), *shares[:2], shares[2] if known else "-", "; ".join(reasons)]


def _switch(function: ReplacedFunction, code: int, bias: int, space: FreeSpace) -> Switch | None:
    try:
        return choose_switches((function,), {"f": code}, bias, space, (BYTE,))[0]
    except LivepatchError:
        return None


def _in_the_way(entry: bytes, places: list[int], mappings: list[Mapping], own: MappedObject) -> str:
    if entry.startswith(JUMP_BYTE):
        return "a jump itself"
    if not places:
        return "too near the end"
    place = places[0]
    if not 0x10000 <= place < 1 << 47:
        return "no address"
    for mapping in mappings:
        if mapping.start < place + JUMP_SIZE and place < mapping.end:
            return "itself" if mapping.path == own.path else "another mapping"
    return "room of heap or stack"


def measure(folder: Path) -> list[list[str]]:
    """A row for each object of two programs: redis-server, where the tests have fetched it, with a socket in `folder`;
    and one that maps the libraries.
    """
    rows: dict[str, list[str]] = {}
    servers = sorted(CACHED.glob("*/" + SERVER)) if CACHED.is_dir() else []
    socket = str(folder / "socket")
    commands = [[str(path), "--port", "0", "--unixsocket", socket, "--save", ""] for path in servers[:1]]
    for command in [*commands, [sys.executable, "-c", _WAIT, *_LIBRARIES]]:
        program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert program.stdout is not None
            for line in program.stdout:
                if "ready" in line.lower():
                    break
            for name, row in _rows(program.pid, set(rows)):
                rows[name] = row
        finally:
            program.kill()
            program.communicate()
    return list(rows.values())


def _rows(pid: int, known: set[str]) -> Iterator[tuple[str, list[str]]]:
    with Process(pid) as process:
        mappings = process.maps()
        objects = mapped_objects(process.memory, mappings)
        start = executable_start(process)
        end = max(found.end for found in objects if found.start == start)
        for found in objects:
            match = OBJECTS.match(Path(found.path).name)
            if match and match.group(1) not in known:
                yield match.group(1), share(match.group(1), found, mappings, end)
