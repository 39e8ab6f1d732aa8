# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What each field of the patch's code refers to: a symbol of the patch, the object's own, or what the process uses."""

from __future__ import annotations

from dataclasses import dataclass

from .._elf.object_file import STT_IFUNC, STT_TLS, Symbol
from .._patch.content import TEXT
from .._patch.manifest import EXTERNAL, OBJECT, WEAK, Reference
from .._patch.relocation_names import RELOCATION_NAMES
from .atoms import Atom, Field
from .calls import calls_directly
from .choose_contents import Included, PatchContents
from .place_units import ArtifactSymbols
from .references import DynamicNames
from .relocated_fields import GOT_LOADS, R_32, R_32S, R_64, R_DTPOFF32, R_PC32, R_TPOFF32, TLS
from .request import Refusal
from .thread_locals import MODULE_BASE, Access, Unsupported, in_executable, of_another_object, through_slots


@dataclass
class Placed:
    """One atom of the patch, with its symbol and its place in the patch's sections."""

    one: Included
    symbol: str
    section: int
    offset: int


@dataclass(frozen=True)
class Resolved:
    """A relocation of an atom of the patch: what is to be filled in where."""

    offset: int
    kind: int
    symbol: str
    addend: int


class UniqueNames:
    """Names for the patch's symbols, no two alike."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def name(self, wanted: str) -> str:
        """`wanted`, or that with a number behind it."""
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = "%s$%d" % (wanted, number)
        self._taken.add(name)
        return name


class FieldResolver:
    """Resolves fields, and keeps the references to the world outside that the patch needs for them.

    `placed` is the patch's own code and data by the identity of its atom; `refusals` is what could not be resolved.
    `indirect` is the patch's own code for calls of the object's IFUNCs: its symbol -> the reference to their slot.
    """

    def __init__(
        self,
        contents: PatchContents,
        artifact: ArtifactSymbols,
        dynamic: DynamicNames,
        names: UniqueNames,
        refusals: list[Refusal],
    ) -> None:
        self.contents = contents
        self.artifact = artifact
        self.dynamic = dynamic
        self.placed: dict[int, Placed] = {}
        self.refusals = refusals
        self.indirect: dict[str, str] = {}
        self._meaningless: set[tuple[int, int]] = set()
        self._names = names
        self._references: dict[tuple[str, str, int, int, str], Reference] = {}

    def references(self) -> tuple[Reference, ...]:
        """All references that fields resolved so far need, by name of their symbol."""
        return tuple(sorted(self._references.values(), key=lambda one: one.symbol))

    def far_data(self) -> bool:
        """True when the contents refer to another object's variable as if it were near, which it is not."""
        return any(
            self._is_far(one, reference)
            for one in self.contents.included
            for reference in one.atom.fields
            if reference.atom is None
        )

    def _known(self, name: str) -> Symbol | None:
        """The object's own symbol for a name that a unit does not define, None for one that is imported."""
        known = self.artifact.globals.get(name)
        return None if self.dynamic.imported(name) else known

    def _is_far(self, user: Included, reference: Field) -> bool:
        name = reference.name
        if reference.kind not in (R_PC32, R_32, R_32S) or calls_directly(user.atom, reference):
            return False
        if name in user.change.after.optional and not self.dynamic.imported(name):
            return False
        if any(name in one.atom.names and not one.atom.local for one in self.contents.included):
            return False
        return self._known(name) is None and not self.dynamic.canonical_plt(name)

    def resolve(self, place: Placed, reference: Field, content: bytearray) -> Resolved | None:
        """The relocation for a field; None when the field was filled here, has no meaning any more, or was refused.

        `content`: the bytes of the section that the atom lies in.
        """
        if (id(place.one.atom), reference.offset) in self._meaningless:
            return None
        if reference.kind in TLS:
            return self._thread_local(place, reference, content)
        indirect = self._indirect_function(place, reference)
        if indirect is not None:
            return self._call_indirect(place, reference, *indirect)
        found = self._symbol(place, reference)
        return Resolved(reference.offset, reference.kind, *found) if found else None

    def frame_symbol(self, place: Placed, reference: Field) -> tuple[str, int] | None:
        """Symbol and addend for a field of the unwind table, on behalf of the function in question."""
        own = self.placed.get(id(reference.atom))
        return (own.symbol, reference.addend) if own is not None else self._symbol(place, reference)

    def external(self, name: str, version: str) -> str:
        """The symbol for a function that the process must have, whether or not the object uses it."""
        return self._reference(EXTERNAL, name, 0, 0, version)

    def _symbol(self, place: Placed, reference: Field) -> tuple[str, int] | None:
        change, user, target = place.one.change, place.one.atom, reference.atom
        if reference.kind not in RELOCATION_NAMES["x86_64"]:
            self.refuse("construct_unsupported", place, "its relocation of type %d is not supported" % reference.kind)
            return None
        if target is None or change.is_overridden(reference.name):
            return self._undefined(place, reference)
        own = self.placed.get(id(target))
        if own is not None and not (own.one.replaces and _takes_address(user, reference)):
            return own.symbol, reference.addend
        address = change.address(target)
        if address is None and change.has_copies(target):
            copies = [one for one in self.placed.values() if set(one.one.atom.names) & set(target.names)]
            if any(not one.one.atom.local for one in copies) or self.artifact.defines(target.name):
                return self._undefined(place, reference)
        if address is None:
            if not target.size:
                return self.refuse("construct_unsupported", place, "it refers to the empty %s" % target.section)
            return self.refuse("internal", place, "%s was to be in the patch and is not" % target.name)
        if not target.local and self.dynamic.interposable(reference.name, reference.kind):
            return self._external(reference.name), reference.addend
        return self._object(reference.name, address), reference.addend

    def _undefined(self, place: Placed, reference: Field) -> tuple[str, int] | None:
        name = reference.name
        for other in self.placed.values():
            keeps_address = other.one.replaces and _takes_address(place.one.atom, reference)
            is_it = name in other.one.atom.names and not other.one.atom.local
            is_it = is_it and not other.one.change.is_overridden(name)
            if is_it and not keeps_address and not self.dynamic.interposable(name, reference.kind):
                return other.symbol, reference.addend
        known = self._known(name)
        if known is not None:
            if self.dynamic.interposable(name, reference.kind):
                return self._external(name), reference.addend
            return self._object(name, known.value), reference.addend
        if self._is_far(place.one, reference):
            return self.refuse(
                "construct_unsupported",
                place,
                "it refers to %s of another object as if it were near, and this object has no copy of it" % name,
                "Compile the project with -fPIC, or write the fix without %s." % name,
            )
        if reference.kind in (R_PC32, R_32, R_32S) and not calls_directly(place.one.atom, reference):
            near = self.dynamic.canonical_plt(name)
            if near:
                return self._object(name, near), reference.addend
            if name not in place.one.change.after.optional:
                return self.refuse("internal", place, "it refers to %s, which has no address" % name)
        return self._external(name, name in place.one.change.after.optional), reference.addend

    def _indirect_function(self, place: Placed, reference: Field) -> tuple[str, int] | None:
        """Name and resolver (link-time address) of the object's own IFUNC that a field means, None where it does not.

        Within its unit the resolver, a function as any other, may be an atom of the same place.
        """
        change, target = place.one.change, reference.atom
        name = reference.symbol if target is not None else reference.name
        if target is None:
            known = self._known(name)
            return (name, known.value) if known is not None and known.kind == STT_IFUNC else None
        if name not in change.indirect_functions():
            return None
        address = change.address(target)
        return (name, address) if address is not None else None

    def _call_indirect(self, place: Placed, reference: Field, name: str, resolver: int) -> Resolved | None:
        """By the object's own slot, in which the dynamic linker put what the resolver chose when the program began."""
        slot = self.dynamic.chosen(name, resolver)
        calls = calls_directly(place.one.atom, reference)
        if not slot or not (calls or reference.kind in GOT_LOADS):
            why = (
                "no code of the object calls it"
                if not slot
                else "its address is taken, and the process may know another"
            )
            self.refuse(
                "construct_unsupported", place, "it refers to %s, an IFUNC of the object itself: %s" % (name, why)
            )
            return None
        symbol = self._object(name, slot)
        if not calls:
            return Resolved(reference.offset, R_PC32, symbol, reference.addend)
        stub = next((stub for stub, leads_to in self.indirect.items() if leads_to == symbol), "")
        if not stub:
            stub = self._names.name(name + ".call")
            self.indirect[stub] = symbol
        return Resolved(reference.offset, R_PC32, stub, reference.addend)

    def _thread_local(self, place: Placed, reference: Field, content: bytearray) -> Resolved | None:
        """Write the code that gets at an existing thread-local variable; the field that leads to a slot, if any."""
        atom = place.one.atom
        try:
            access = self._access(place, reference)
        except Unsupported as unsupported:
            name = reference.atom.name if reference.atom is not None else reference.name
            self.refuse("tls_unsupported", place, "it uses the thread-local %s, and %s" % (name, unsupported))
            return None
        if access.also >= 0:
            self._meaningless.add((id(atom), access.also))
        start = place.offset + access.offset
        content[start : start + len(access.code)] = access.code
        if not access.slot:
            return None
        name = reference.symbol or reference.name
        return Resolved(access.slot_at, R_PC32, self._object(name, access.slot), -4)

    def _access(self, place: Placed, reference: Field) -> Access:
        atom, target, name = place.one.atom, reference.atom, reference.symbol or reference.name
        code, at, kind = atom.content, reference.offset, reference.kind
        slots = self.dynamic.thread_locals
        is_plain = kind in (R_TPOFF32, R_DTPOFF32)
        inside = reference.addend if is_plain else 0
        if not is_plain and reference.addend not in (-4, 0):
            raise Unsupported("its field has the addend %d" % reference.addend)
        offset = self._offset_in_block(place, reference)
        if self.dynamic.is_library:
            return through_slots(code, at, kind, name, None if offset is None else offset + inside, slots)
        if name == MODULE_BASE:
            return in_executable(code, at, kind, 0)
        if offset is None:
            if target is not None:
                raise Unsupported("the object has none of this name")
            return of_another_object(code, at, kind, name, slots)
        return in_executable(code, at, kind, slots.from_thread_pointer(offset) + inside)

    def _offset_in_block(self, place: Placed, reference: Field) -> int | None:
        """Where the object's own variable lies in its block of thread-local variables, None for another object's."""
        if reference.name == MODULE_BASE:
            return 0
        if reference.atom is not None:
            return place.one.change.address(reference.atom)
        known = self._known(reference.name)
        return known.value if known is not None and known.kind == STT_TLS else None

    def _object(self, name: str, address: int) -> str:
        return self._reference(OBJECT, name, address, 0, "")

    def _external(self, name: str, optional: bool = False) -> str:
        slot = self.dynamic.slots.get(name, 0)
        return self._reference(WEAK if optional else EXTERNAL, name, 0, slot, self.dynamic.versions.get(name, ""))

    def _reference(self, kind: str, name: str, offset: int, slot: int, version: str) -> str:
        key = (kind, name, offset, slot, version)
        if key not in self._references:
            self._references[key] = Reference(self._names.name(name), kind, name, offset, slot, version)
        return self._references[key].symbol

    def refuse(self, code: str, place: Placed, why: str, remedy: str = "") -> tuple[str, int] | None:
        """Note a refusal; None, as the answer of who cannot resolve a reference."""
        atom = place.one.atom
        owner = place.one.change.owner(atom)
        name = owner.name if owner else atom.section
        self.refusals.append(
            Refusal(
                code,
                name,
                place.one.change.unit.word,
                "%s cannot go into the patch: %s" % (name, why),
                remedy,
            )
        )
        return None


def _takes_address(user: Atom, reference: Field) -> bool:
    """True when a reference to a function is to its entry and not a call: the function's one address in the process."""
    if reference.kind == R_64 or reference.kind in (R_32, R_32S):
        return reference.addend == 0
    if user.kind != TEXT or calls_directly(user, reference):
        return False
    return reference.addend == -4
