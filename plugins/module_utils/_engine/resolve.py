# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the references of a patch lead in one process: its own object by offset, everything else as the process has
it.
"""

from __future__ import annotations

from typing import Iterator

from .._elf.dynamic import Definition, Slot
from .._elf.header import PT_DYNAMIC
from .._errors import LivepatchError
from .._patch.manifest import OBJECT, WEAK, Manifest, Reference
from .._process.link_map import LinkedObject, linked_objects, scope_of, slot_value
from .._process.objects import MappedObject
from .._process.process import Process

_BOUND_KINDS = (1, 6, 7)  # R_X86_64_64, GLOB_DAT, JUMP_SLOT
_IRELATIVE = 37


class Resolver:
    """Look-ups in one process for one object; the list of linked objects is read once, when first needed."""

    def __init__(self, process: Process, target: MappedObject, mapped: list[MappedObject]) -> None:
        self._process = process
        self._target = target
        self._mapped = mapped
        self._linked: list[LinkedObject] | None = None
        self._scope: list[LinkedObject] | None = None

    def addresses(self, manifest: Manifest) -> dict[str, int]:
        """The run-time address of every reference, by symbol: places in the object were checked (check_places).

        Raises LivepatchError symbol_not_found.
        """
        return {reference.symbol: self._address(reference) for reference in manifest.references}

    def _address(self, reference: Reference) -> int:
        if reference.kind == OBJECT:
            return self._target.bias + reference.offset
        if reference.slot:
            value = slot_value(self._process.memory, self._target.bias + reference.slot)
            # A slot that still leads into its own object was not bound yet (lazy binding), or is bound to that object.
            if value and not self._target.start <= value < self._target.end:
                return value
        return self._look_up(reference)

    def _look_up(self, reference: Reference) -> int:
        if self._scope is None:
            self._scope = scope_of(self._objects(), self._dynamic())
            if self._objects() and all(part.dynamic != self._dynamic() for part in self._scope):
                raise self._not_found(reference, "the patched object is in no known namespace of the dynamic linker")
        for candidate in self._scope:
            found = candidate.table.look_up(reference.name, reference.version)
            if found is None:
                continue
            if found.is_tls:
                raise self._not_found(reference, "it is thread-local")
            return self._resolved(reference, candidate, found) if found.is_ifunc else found.address
        if reference.kind == WEAK:
            return 0
        raise self._not_found(reference, "no library in its scope defines it")

    def _resolved(self, reference: Reference, owner: LinkedObject, found: Definition) -> int:
        """What the process itself chose for an IFUNC: we must not run its resolver."""
        for candidate, slot in self._slots():
            bound = slot.name == reference.name and slot.kind in _BOUND_KINDS and not slot.addend
            own = candidate is owner and slot.kind == _IRELATIVE and owner.table.bias + slot.addend == found.address
            if bound or own:
                value = slot_value(self._process.memory, slot.address)
                if value and value != found.address and (own or not self._is_stub(candidate, value)):
                    return value
        raise self._not_found(reference, "it is an IFUNC that the process has not resolved anywhere")

    def _is_stub(self, owner: LinkedObject, value: int) -> bool:
        """True when a slot leads into the very object it belongs to: then it was not bound yet."""
        return any(part.start <= owner.dynamic < part.end and part.start <= value < part.end for part in self._mapped)

    def _slots(self) -> Iterator[tuple[LinkedObject, Slot]]:
        for candidate in self._objects():
            for slot in candidate.table.slots():
                yield candidate, slot

    def _objects(self) -> list[LinkedObject]:
        """The objects of the target's namespace, or of the first one where none is known to have it."""
        if self._linked is None:
            namespaces = linked_objects(self._process)
            own = [objects for objects in namespaces if any(part.dynamic == self._dynamic() for part in objects)]
            self._linked = next(iter(own + namespaces), [])
        return self._linked

    def _dynamic(self) -> int:
        """The run-time address of the target's dynamic table, 0 when it has none."""
        segment = self._target.header.first(PT_DYNAMIC)
        return self._target.bias + segment.address if segment else 0

    def _not_found(self, reference: Reference, why: str) -> LivepatchError:
        version = "@" + reference.version if reference.version else ""
        return LivepatchError(
            "symbol_not_found", "%s%s is not to be had in %s: %s" % (reference.name, version, self._process, why)
        )
