# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A patch may name places of its own object only: whatever it says, whoever signed it, nothing else is read or written.

What its code refers to in other objects it names by symbol, and the process's own tables say where that is.
"""

from __future__ import annotations

from .._elf.header import PF_W, PF_X
from .._errors import LivepatchError
from .._patch.content import Patch
from .._patch.manifest import OBJECT, Manifest
from .._process.maps import Mapping, mapping_at
from .._process.objects import MappedObject
from .image import Image
from .region import Site
from .relocation import x86_64 as relocation

# How far beside what it names a field may lead, bytes: compilers fold the constant part of an index into the address.
_BESIDE = 1 << 16
# A slot is named as a whole; the addend only makes up for the bytes behind the field (at most a word of them).
_BEHIND_FIELD = 12


def check_places(target: MappedObject, manifest: Manifest) -> None:
    """Raises LivepatchError patch_corrupt for a function, cold part, value or reference outside the object's segments.

    Code must lie in a segment with code, a value in one that the program itself may write to.
    """
    for function in manifest.functions:
        if not target.holds(function.offset, max(function.size, len(function.entry) // 2), PF_X):
            raise _outside(function.name, "the code of its object")
    for cold in manifest.cold:
        if not target.holds(cold.offset, cold.size, PF_X):
            raise _outside(cold.name, "the code of its object")
    for value in manifest.data:
        if not target.holds(value.offset, len(value.old) // 2, PF_W):
            raise _outside(value.name, "the data of its object")
    for reference in manifest.references:
        if reference.kind == OBJECT and not target.holds(reference.offset, 1, 0):
            raise _outside(reference.name, "its object")
        if reference.is_outside and reference.slot and not target.holds(reference.slot, 8, 0):
            raise _outside("the slot of %s" % reference.name, "its object")


def check_fields(target: MappedObject, patch: Patch, image: Image) -> None:
    """Raises LivepatchError patch_corrupt for a field of the patch that leads away from what it names."""
    offsets = {one.symbol: one.offset for one in patch.manifest.references if one.kind == OBJECT}
    low, high = target.start - target.bias, target.end - target.bias
    for entry in patch.relocations:
        if relocation.needs_slot(entry.kind):
            fits = -_BEHIND_FIELD <= entry.addend <= 0
        elif entry.symbol in offsets:
            fits = low - _BESIDE <= offsets[entry.symbol] + entry.addend <= high + _BESIDE
        elif image.has_symbol(entry.symbol):
            fits = -_BESIDE <= image.symbol(entry.symbol) + entry.addend <= image.size + _BESIDE
        else:
            fits = abs(entry.addend) <= _BESIDE
        if not fits:
            raise _outside("what lies %d bytes beside %s" % (entry.addend, entry.symbol), "what that is part of")


def check_sites(target: MappedObject, sites: tuple[Site, ...], who: str) -> None:
    """Raises LivepatchError object_modified for a place outside the object, as only a process that lies names one."""
    for site in sites:
        flags = PF_W if site.kind == "data" else PF_X
        if not target.holds(site.address - target.bias, len(site.old), flags):
            raise LivepatchError(
                "object_modified",
                "%s says that %s at %#x is to be changed, which is no part of %s"
                % (who, site.name, site.address, target.path),
                "Nothing was written. Restart the process: what it says of itself is not so.",
            )


def check_private(mappings: list[Mapping], sites: tuple[Site, ...], who: str) -> None:
    """What is changed must be the process's own. Raises LivepatchError patch_unsupported for shared memory."""
    for site in sites:
        mapping = mapping_at(mappings, site.address)
        if mapping is not None and mapping.is_shared():
            raise LivepatchError(
                "patch_unsupported",
                "%s at %#x of %s is in memory that is shared with %s: a change would change that, too"
                % (site.name, site.address, who, mapping.path or "others"),
                "Restart the process into the fixed version.",
            )


def _outside(name: str, what: str) -> LivepatchError:
    return LivepatchError("patch_corrupt", "the patch places %s outside %s" % (name, what))
