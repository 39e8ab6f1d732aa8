# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The objects a process has linked, in the dynamic linker's own order, and the scope that a name is looked up in.

Read from the process's memory: the dynamic linker keeps a list for debuggers (struct r_debug and struct link_map in
<link.h>), found through the DT_DEBUG entry of the executable.
"""

from __future__ import annotations

import collections
import errno
import struct
import time
from dataclasses import dataclass

from .._elf.dynamic import DT_DEBUG, DynamicTable, text_at
from .._elf.header import PT_DYNAMIC, NotElf, Read, parse_header
from .._errors import LivepatchError
from .memory import Memory
from .process import Process

_AT_PHDR, _AT_SYSINFO_EHDR = 3, 33
# More objects than any real program links, or namespaces than there may be; a damaged list must not keep us reading.
_MOST_OBJECTS, _MOST_NAMESPACES = 8192, 64
# All look-ups in one process, seconds: a program with 300 libraries takes a few.
_MOST_TIME = 30
# struct r_debug, and struct r_debug_extended, which says so by its version (glibc 2.35 and later).
_VERSION_WITH_NEXT, _MAP_AT, _NEXT_AT = 2, 8, 40
# r_state of struct r_debug between changes of the list, and how often it is looked at, seconds.
_CONSISTENT, _PAUSE = 0, 0.005


@dataclass(frozen=True)
class LinkedObject:
    """One entry of the list: the path as the dynamic linker has it ("" for the executable), and its dynamic table.

    `dynamic`: the run-time address of that table, by which an object is known: prelinked ones may all have bias 0.
    """

    name: str
    dynamic: int
    table: DynamicTable

    def names(self) -> tuple[str, ...]:
        """What a DT_NEEDED that means this object may say."""
        return (self.name, self.name.rpartition("/")[2], self.table.soname())


def executable_start(process: Process) -> int:
    """The address of the executable's first page, 0 when it cannot be told."""
    return _auxiliary(process, _AT_PHDR) & ~0xFFF


def _auxiliary(process: Process, kind: int) -> int:
    """What the kernel told the program at its start (getauxval(3)), 0 when it did not."""
    vector = process.read_bytes("auxv")
    values = dict(struct.iter_unpack("<QQ", vector[: len(vector) - len(vector) % 16]))
    return int(values.get(kind, 0))


def linked_objects(process: Process) -> list[list[LinkedObject]]:
    """Every linked object, by namespace (dlmopen(3)), in the first one the executable first; empty for a static
    program. Other namespaces than the first are known from glibc 2.35 on. What the tables are asked later counts, too,
    towards the time that all of this may take. Raises OSError where the list is damaged, LivepatchError
    symbol_not_found when that time is over.
    """
    read = _patient(process)
    main = _executable(process)
    if main is None:
        return []
    debug = main.table.value(DT_DEBUG)
    if not debug:
        # Whoever starts a program as an argument of the dynamic linker has that as the first object.
        linkers = main.table.look_up("_r_debug")
        debug = linkers.address if linkers else 0
    if not debug:
        return [[main]]
    # The kernel's own object is in the list, but no name is looked up in it: its clock_gettime sets no errno.
    kernels = _auxiliary(process, _AT_SYSINFO_EHDR)
    namespaces: list[list[LinkedObject]] = []
    while debug and len(namespaces) < _MOST_NAMESPACES:
        namespaces.append(_namespace(read, struct.unpack("<Q", read(debug + _MAP_AT, 8))[0], kernels))
        version = struct.unpack("<I", read(debug, 4))[0]
        extended = version >= _VERSION_WITH_NEXT
        debug = struct.unpack("<Q", read(debug + _NEXT_AT, 8))[0] if extended else 0
    return namespaces


def _patient(process: Process) -> Read:
    """As the memory's read, for a limited time: a program can make its lists and tables as long as it likes."""
    read, end = process.memory.read, time.monotonic() + _MOST_TIME

    def limited(address: int, size: int) -> bytes:
        if time.monotonic() > end:
            raise LivepatchError(
                "symbol_not_found",
                "the libraries of %s cannot be looked through in %d seconds: it has too many, or invents them"
                % (process, _MOST_TIME),
                "Restart the process into the fixed version.",
            )
        return read(address, size)

    return limited


def _namespace(read: Read, at: int, kernels: int) -> list[LinkedObject]:
    """The list of link maps that starts at `at`, without the object that the kernel has put at `kernels`."""
    found: list[LinkedObject] = []
    seen: set[int] = set()
    while at:
        if at in seen or len(seen) == _MOST_OBJECTS:
            raise OSError(errno.ELOOP, "its list of linked objects has no end")
        seen.add(at)
        # What is to be added to link-time addresses may be negative: an object can be linked for a high address.
        bias, name_at, table_at, following = struct.unpack("<qQQQ", read(at, 32))
        if not kernels or bias != kernels:
            found.append(LinkedObject(text_at(read, name_at), table_at, DynamicTable(read, bias, table_at)))
        at = following
    return found


def _executable(process: Process) -> LinkedObject | None:
    """The executable, None for a static program. Raises OSError where its dynamic table is damaged."""
    memory, start = process.memory, executable_start(process)
    try:
        header = parse_header(memory.read, start)
    except (NotElf, OSError):
        return None
    dynamic = header.first(PT_DYNAMIC)
    if dynamic is None:
        return None
    bias = start - header.lowest_page()
    at = bias + dynamic.address
    return LinkedObject("", at, DynamicTable(memory.read, bias, at))


def wait_until_linked(process: Process, timeout: float) -> None:
    """Until the dynamic linker is not at work, as it is when a program begins and in dlopen; `timeout` seconds at most.

    Only then are all objects there and all names bound (r_state in <link.h>). Raises LivepatchError process_gone.
    """
    end = time.monotonic() + timeout
    while (not process.program() or _is_linking(process)) and time.monotonic() < end:
        time.sleep(_PAUSE)


def _is_linking(process: Process) -> bool:
    try:
        main = _executable(process)
        if main is None or DT_DEBUG not in main.table.values:
            return False
        debug = main.table.value(DT_DEBUG)
        return not debug or struct.unpack("<I", process.memory.read(debug + 24, 4))[0] != _CONSISTENT
    except OSError:
        return False


def scope_of(objects: list[LinkedObject], dynamic: int) -> list[LinkedObject]:
    """The objects in which a name used by one of them is looked up, in order (dlopen(3), ld.so(8)).

    `objects`: those of its namespace; `dynamic`: the run-time address of its dynamic table. The global scope (the
    executable, preloaded libraries, then what they need, breadth first), then for an object that came by dlopen the
    object itself and what it needs. In a namespace made by dlmopen the object that was opened first takes the place of
    the executable: glibc makes it, and what it needs, the namespace's global scope.
    """
    if not objects:
        return []
    by_name: dict[str, LinkedObject] = {}
    for candidate in objects:
        for name in candidate.names():
            by_name.setdefault(name, candidate)
    own = [candidate for candidate in objects if candidate.dynamic == dynamic]
    reached: dict[int, LinkedObject] = {}
    for root in [objects[0]] + own:
        queue = collections.deque([root])
        while queue:
            at = queue.popleft()
            if at.dynamic in reached:
                continue
            reached[at.dynamic] = at
            queue.extend(by_name[needed] for needed in at.table.needed() if needed in by_name)
    # Preloaded libraries stand right behind the executable in the list, and nobody needs them by name.
    preloaded = []
    for candidate in objects[1:]:
        if candidate.dynamic in reached:
            break
        preloaded.append(candidate)
    first, *others = reached.values()
    return [first, *preloaded, *others]


def slot_value(memory: Memory, slot: int) -> int:
    """The pointer that lies in a slot at a run-time address."""
    value: int = struct.unpack("<Q", memory.read(slot, 8))[0]
    return value
