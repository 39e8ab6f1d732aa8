# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a loaded patch is bound to, its object and what its code uses of others, and whether that is still there.

dlclose(3) takes objects away, and something else may lie at the same address afterwards, with the same first bytes of
a function even: two builds of one library often have them. So bytes alone never say that a place may be written to.
"""

from __future__ import annotations

from typing import Callable

from .._elf.build_id import build_id_notes, notes_build_id
from .._errors import LivepatchError
from .._process.maps import Mapping, mapping_at
from .._process.memory import Memory
from .._process.objects import MappedObject, object_starting_at
from .._process.process import Process
from .inside_object import check_private, check_sites
from .region import Region


def object_is_there(memory: Memory, mappings: list[Mapping], region: Region) -> bool:
    """True when the object that a region was made for, by its build-id in memory, starts where it did then."""
    return _object_of(memory, mappings, region) is not None


def _object_of(memory: Memory, mappings: list[Mapping], region: Region) -> MappedObject | None:
    """The object that a region was made for, None where it is not where it was then."""
    found = object_starting_at(memory, mappings, region.object_start)
    return found if found is not None and found.build_id == region.patch["build_id"] else None


def check_there(process: Process, regions: list[Region]) -> Callable[[], None]:
    """What these regions were made for is still there, and what they are to change is a part of it, and the process's
    own: to be asked right before writing, for no lock keeps it so.

    What is returned asks once more, while all threads stand still: for the notes with the build-ids alone, 3 us an
    object. Both raise LivepatchError object_modified, this patch_unsupported, too.
    """
    mappings = process.maps()
    notes = []
    for region in regions:
        target = _object_of(process.memory, mappings, region)
        if target is None:
            raise _closed(process, region)
        check_sites(target, region.sites, str(process))
        check_private(mappings, region.sites, str(process))
        found = build_id_notes(process.memory.read, target.header, target.bias)
        if found is None or notes_build_id(found[1]) != target.build_id:
            raise _closed(process, region)
        notes.append((region, *found))

    def check_again() -> None:
        for region, address, expected in notes:
            try:
                same = process.memory.read(address, len(expected)) == expected
            except OSError:
                same = False
            if not same:
                raise _closed(process, region)

    return check_again


def _closed(process: Process, region: Region) -> LivepatchError:
    return LivepatchError(
        "object_modified",
        "the object of patch %s, at %#x of %s, was closed meanwhile" % (region.id, region.object_start, process),
        "Run the task again.",
    )


def uses(mappings: list[Mapping], addresses: list[int]) -> tuple[tuple[int, str], ...]:
    """One (address, what is mapped there) for each mapping that holds some of these addresses."""
    found: dict[Mapping | None, int] = {}
    for address in sorted(addresses):
        found.setdefault(mapping_at(mappings, address), address)
    return tuple((address, _identity(mappings, address)) for address in found.values())


def lost_use(mappings: list[Mapping], region: Region) -> int:
    """The first address used by a region's code at which something else is mapped by now; 0 for none."""
    return next((address for address, identity in region.uses if _identity(mappings, address) != identity), 0)


def _identity(mappings: list[Mapping], address: int) -> str:
    """What is mapped at an address: of a file, which file and which byte of it."""
    mapping = mapping_at(mappings, address)
    if mapping is None:
        return "nothing"
    if not mapping.is_file():
        return "memory"
    return "%s:%d:%#x" % (mapping.device, mapping.inode, mapping.offset + address - mapping.start)
