# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The objects (executable and shared libraries) that a process has mapped, identified from its memory."""

from __future__ import annotations

from dataclasses import dataclass

from .._elf.build_id import memory_build_id
from .._elf.header import PF_X, Header, NotElf
from .._errors import LivepatchError
from .maps import DELETED, Mapping, mapping_at
from .memory import Memory

# Ten times what the largest programs link.
_MOST_OBJECTS, _MOST_NAMED = 8192, 8


@dataclass(frozen=True)
class MappedObject:
    """One object in one process: `bias` is what to add to a link-time address, `path` as in maps without
    "(deleted)".
    """

    path: str
    deleted: bool
    start: int
    end: int
    bias: int
    header: Header
    build_id: str

    def holds(self, offset: int, size: int, flags: int) -> bool:
        """True when link-time addresses [offset, offset + size) lie in one mapped segment that has these PF_ flags."""
        return any(segment.holds(offset, size) and segment.flags & flags == flags for segment in self.header.loads())


def candidate_starts(mappings: list[Mapping]) -> list[Mapping]:
    """The mappings that may be the first page of an object: a file's beginning, and the vDSO is not one."""
    return [
        mapping for mapping in mappings if mapping.offset == 0 and mapping.is_file() and mapping.permissions[0] == "r"
    ]


def mapped_objects(memory: Memory, mappings: list[Mapping]) -> list[MappedObject]:
    """Every object with a build-id, in address order; what is no ELF object or has none is left out.

    Raises LivepatchError patch_unsupported for more of them than any program has.
    """
    found = []
    for mapping in candidate_starts(mappings):
        here = object_at(memory, mappings, mapping)
        if here:
            found.append(here)
        if len(found) > _MOST_OBJECTS:
            raise LivepatchError(
                "patch_unsupported",
                "a process maps more than %d objects" % _MOST_OBJECTS,
                "Restart the process into the fixed version.",
            )
    return found


def object_starting_at(memory: Memory, mappings: list[Mapping], start: int) -> MappedObject | None:
    """The object whose first page is mapped at `start`, or None when there is none with a build-id."""
    mapping = mapping_at(mappings, start)
    if mapping is None or mapping.start != start or not candidate_starts([mapping]):
        return None
    return object_at(memory, mappings, mapping)


def object_at(memory: Memory, mappings: list[Mapping], mapping: Mapping) -> MappedObject | None:
    """The object whose first page is `mapping`, or None when it is no object with a build-id.

    A file that is only read through a mapping (by a debugger, or by a program that looks up its own symbols) is no
    object of the process: there is no code where its headers place it.
    """
    try:
        header, bias, build_id = memory_build_id(memory.read, mapping.start)
    except (NotElf, OSError):
        return None
    code = [segment for segment in header.loads() if segment.flags & PF_X and segment.file_size]
    places = [mapping_at(mappings, bias + segment.address) for segment in code]
    if build_id is None or not all(place and place.is_executable() for place in places):
        return None
    end = bias + max(segment.address + segment.size for segment in header.loads())
    deleted = mapping.path.endswith(DELETED)
    path = mapping.path[: -len(DELETED)] if deleted else mapping.path
    return MappedObject(path, deleted, mapping.start, end, bias, header, build_id)


def find_object(objects: list[MappedObject], build_id: str, who: str) -> MappedObject:
    """The object with this build-id.

    Raises LivepatchError build_id_mismatch when it is not mapped, patch_unsupported when several copies of it are.
    """
    found = [candidate for candidate in objects if candidate.build_id == build_id]
    if not found:
        raise LivepatchError("build_id_mismatch", "%s does not map the object with build-id %s" % (who, build_id))
    if len(found) > 1:
        raise several_copies(build_id, [candidate.start for candidate in found], who)
    return found[0]


def several_copies(build_id: str, starts: list[int], who: str) -> LivepatchError:
    """The error for an object that is in one process more than once: patching one copy would fix a part of it."""
    return LivepatchError(
        "patch_unsupported",
        "%s maps the object with build-id %s %d times (dlmopen, or copies of one file), at %s"
        % (who, build_id, len(starts), ", ".join("%#x" % start for start in starts[:_MOST_NAMED])),
        "Restart the process into the fixed version: a patch for several copies in one process is not supported.",
    )
