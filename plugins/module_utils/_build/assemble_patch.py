# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""From chosen atoms to the content of a patch file: sections laid out, symbols named, every reference resolved."""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_right
from dataclasses import dataclass

from .._elf.object_file import SHF_EXECINSTR, STT_FUNC, STT_IFUNC, STT_NOTYPE, STT_TLS
from .._patch.content import BSS, DATA, RODATA, TEXT, Patch, Relocation, Section, Symbol
from .._patch.manifest import BoundObject, ChangedValue, ColdCode, Manifest, Reference, ReplacedFunction
from .._patch.relocation_names import RELOCATION_NAMES
from .atoms import Atom, Field
from .changed_units import ChangedUnits
from .entry_room import ENTRY_BYTES, branched_into, overwritable
from .choose_contents import Included, PatchContents, calls_directly
from .place_units import ArtifactSymbols
from .prove_source import DeployedObject
from .references import DynamicNames
from .relocated_fields import R_32, R_32S, R_64, R_PC32, R_TPOFF32, TLS
from .request import BuildRequest, Refusal

_LEAST_FUNCTION_ALIGN = 16


@dataclass
class _Placed:
    one: Included
    symbol: str
    section: int
    offset: int


class PatchAssembly:
    """Turns contents into a patch, collecting refusals for references that cannot be made."""

    def __init__(
        self,
        request: BuildRequest,
        units: ChangedUnits,
        contents: PatchContents,
        symbols: ArtifactSymbols,
        deployed: DeployedObject,
    ) -> None:
        self.request = request
        self.units = units
        self.contents = contents
        self.artifact = symbols
        self.deployed = deployed
        self.dynamic = DynamicNames(deployed.file)
        self.refusals: list[Refusal] = []
        self._references: dict[tuple[str, str, int, int, str], Reference] = {}
        self._taken: set[str] = set()
        self._at: dict[int, _Placed] = {}
        self._code_starts = sorted(
            {
                symbol.value
                for symbol in symbols.artifact.symbols()
                if symbol.kind in (STT_FUNC, STT_IFUNC, STT_NOTYPE)
                and symbol.is_defined()
                and symbols.artifact.sections[symbol.section].flags & SHF_EXECINSTR
            }
        )

    def far_data(self) -> bool:
        """True when the contents refer to another object's variable as if it were near, which it is not."""
        return any(
            self._is_far(one.atom, reference)
            for one in self.contents.included
            for reference in one.atom.fields
            if reference.atom is None
        )

    def _is_far(self, user: Atom, reference: Field) -> bool:
        name = reference.name
        if reference.kind not in (R_PC32, R_32, R_32S) or calls_directly(user, reference):
            return False
        if any(name in one.atom.names and not one.atom.local for one in self.contents.included):
            return False
        known = name in self.artifact.globals and not self.dynamic.imported(name)
        return not known and not self.dynamic.canonical_plt(name)

    def assemble(self, built: dict[str, str], arch: str, quiescent: bool) -> Patch:
        """The patch; look at `refusals` before using it. `quiescent`: activating it needs no less than that."""
        sections = self._lay_out()
        contents = [bytearray(section.content) for section in sections]
        relocations: list[Relocation] = []
        for place in self._at.values():
            for reference in place.one.atom.fields:
                resolved = self._resolve(place, reference, contents[place.section])
                if resolved is not None:
                    symbol, addend = resolved
                    relocations.append(
                        Relocation(place.section, place.offset + reference.offset, reference.kind, symbol, addend)
                    )
        sections = [Section(s.name, s.kind, s.align, s.size, bytes(content)) for s, content in zip(sections, contents)]
        symbols = tuple(
            Symbol(p.symbol, p.section, p.offset, p.one.atom.size, p.one.atom.kind == TEXT) for p in self._at.values()
        )
        functions = tuple(
            sorted((self._replaced(p) for p in self._at.values() if p.one.replaces), key=lambda f: f.offset)
        )
        manifest = Manifest(
            id=self.request.name,
            version=self.request.version,
            object=BoundObject(self._object_name(), self.deployed.build_id, arch),
            functions=functions,
            cold=self._cold_code(),
            data=tuple(self._changed_values()),
            references=tuple(sorted(self._references.values(), key=lambda r: r.symbol)),
            new_symbols=tuple(sorted(p.symbol for p in self._at.values() if p.one.atom.name and not p.one.replaces)),
            description=self.request.description,
            cves=self.request.cves,
            requires=self.request.requires,
            replaces=self.request.replaces,
            consistency="quiescent"
            if quiescent
            else self.request.consistency or ("entry" if len(functions) < 2 else "atomic"),
            built=built,
        )
        return Patch(
            manifest,
            tuple(sections),
            symbols,
            tuple(sorted(relocations, key=lambda r: (r.section, r.offset))),
        )

    def _object_name(self) -> str:
        return self.request.artifact.rsplit("/", 1)[-1]

    def _lay_out(self) -> list[Section]:
        """Four sections at most, the atoms one behind the other."""
        sections: list[Section] = []
        for name, kind in ((".text", TEXT), (".rodata", RODATA), (".data", DATA), (".bss", BSS)):
            body, align, size = bytearray(), 1, 0
            for one in self.contents.included:
                atom = one.atom
                if _section_kind(atom) != kind or not atom.size:
                    continue
                step = max(atom.align, _LEAST_FUNCTION_ALIGN if kind == TEXT else 1)
                align = max(align, step)
                offset = (size + step - 1) // step * step
                self._at[id(atom)] = _Placed(one, self._name(_symbol_name(one)), len(sections), offset)
                if kind != BSS:
                    # int3 between functions: whoever gets there by mistake is stopped.
                    body += (b"\xcc" if kind == TEXT else b"\0") * (offset - len(body)) + (
                        atom.content or bytes(atom.size)
                    )
                size = offset + atom.size
            if size:
                sections.append(Section(name, kind, align, size, bytes(body)))
        return sections

    def _name(self, wanted: str) -> str:
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = "%s$%d" % (wanted, number)
        self._taken.add(name)
        return name

    def _resolve(self, place: _Placed, reference: Field, content: bytearray) -> tuple[str, int] | None:
        """Symbol and addend of a relocation; None when the field was filled here, or refused."""
        change, user, target = place.one.change, place.one.atom, reference.atom
        if reference.kind in TLS:
            self._thread_local(place, reference, content)
            return None
        if reference.kind not in RELOCATION_NAMES["x86_64"]:
            self._refused("construct_unsupported", place, "its relocation of type %d is not supported" % reference.kind)
            return None
        if target is None:
            return self._undefined(place, reference)
        own = self._at.get(id(target))
        if own is not None and not (own.one.replaces and _takes_address(user, reference)):
            return own.symbol, reference.addend
        address = change.address(target)
        if address is None:
            if not target.size:
                return self._refused("construct_unsupported", place, "it refers to the empty %s" % target.section)
            return self._refused("internal", place, "%s was to be in the patch and is not" % target.name)
        if not target.local and self.dynamic.interposable(target.name, reference.kind):
            return self._external(target.name), reference.addend
        return self._object(target.name, address), reference.addend

    def _undefined(self, place: _Placed, reference: Field) -> tuple[str, int] | None:
        name = reference.name
        for other in self._at.values():
            keeps_address = other.one.replaces and _takes_address(place.one.atom, reference)
            is_it = name in other.one.atom.names and not other.one.atom.local
            if is_it and not keeps_address and not self.dynamic.interposable(name, reference.kind):
                return other.symbol, reference.addend
        known = self.artifact.globals.get(name)
        if known is not None and not self.dynamic.imported(name):
            if known.kind == STT_IFUNC:
                return self._refused(
                    "construct_unsupported", place, "it refers to %s, an IFUNC of the object itself" % name
                )
            if self.dynamic.interposable(name, reference.kind):
                return self._external(name), reference.addend
            return self._object(name, known.value), reference.addend
        if self._is_far(place.one.atom, reference):
            return self._refused(
                "construct_unsupported",
                place,
                "it refers to %s of another object as if it were near, and this object has no copy of it" % name,
                "Compile the project with -fPIC, or write the fix without %s." % name,
            )
        if reference.kind in (R_PC32, R_32, R_32S) and not calls_directly(place.one.atom, reference):
            return self._object(name, self.dynamic.canonical_plt(name)), reference.addend
        return self._external(name), reference.addend

    def _thread_local(self, place: _Placed, reference: Field, content: bytearray) -> None:
        """Fill the offset of an existing thread-local variable of an executable: it is the same for every process."""
        target = reference.atom
        value = None
        if reference.kind == R_TPOFF32 and target is not None and place.one.change.placed is not None:
            symbols = [s for s in self.artifact.artifact.symbols() if s.kind == STT_TLS and s.name in target.names]
            value = symbols[0].value if len({s.value for s in symbols}) == 1 else None
        elif reference.kind == R_TPOFF32 and reference.name in self.artifact.globals:
            value = self.artifact.globals[reference.name].value
        offset = self.dynamic.thread_offset(value) if value is not None else None
        if offset is None:
            name = target.name if target is not None else reference.name
            self._refused("tls_unsupported", place, "it uses the thread-local %s" % name)
            return
        struct.pack_into("<i", content, place.offset + reference.offset, offset + reference.addend)

    def _object(self, name: str, address: int) -> str:
        return self._reference("object", name, address, 0, "")

    def _external(self, name: str) -> str:
        slot = self.dynamic.slots.get(name, 0)
        return self._reference("external", name, 0, slot, self.dynamic.versions.get(name, ""))

    def _reference(self, kind: str, name: str, offset: int, slot: int, version: str) -> str:
        key = (kind, name, offset, slot, version)
        if key not in self._references:
            self._references[key] = Reference(self._name(name), kind, name, offset, slot, version)
        return self._references[key].symbol

    def _replaced(self, place: _Placed) -> ReplacedFunction:
        change, atom = place.one.change, place.one.atom
        address, size = change.address(atom), change.size(atom)
        raw = self.deployed.file.read(address, size) if address is not None else None
        if address is None or not size or raw is None:
            self._refused("construct_unsupported", place, "its original has no size in the object")
            return ReplacedFunction(atom.name, address or 0, size, "", "", 0, place.symbol, atom.size)
        following = bisect_right(self._code_starts, address)
        section = self.deployed.file.section_at(address)
        limit = section.address + section.size if section else address + size
        if following < len(self._code_starts):
            limit = min(limit, max(self._code_starts[following], address + size))
        old = change.original(atom)
        inside = branched_into(change.before, old.names) if change.before and old else []
        room = overwritable(self.deployed.path, address, size, limit, inside)
        end = section.address + section.size if section else address + size
        entry = self.deployed.file.read(address, min(ENTRY_BYTES, end - address)) or b""
        return ReplacedFunction(
            atom.name,
            address,
            size,
            hashlib.sha256(raw).hexdigest(),
            entry.hex(),
            room,
            place.symbol,
            atom.size,
        )

    def _cold_code(self) -> tuple[ColdCode, ...]:
        """The cold parts that the replaced functions have in the object."""
        found = set()
        for one in self.contents.replaced():
            old, placed = one.change.original(one.atom), one.change.placed
            if old is None or placed is None:
                continue
            for name, address in placed.symbols.items():
                if any(name.startswith(function + ".cold") for function in old.names):
                    found.add((address, placed.sizes[name], name))
        return tuple(ColdCode(name, address, size) for address, size, name in sorted(found))

    def _changed_values(self) -> list[ChangedValue]:
        values = []
        for change, atom in self.contents.changed_data:
            address, old = change.address(atom), change.original(atom)
            if address is None or old is None:
                continue
            before = self.deployed.file.read(address, old.size)
            if atom.size != old.size or atom.fields or old.fields or before is None:
                self.refusals.append(
                    Refusal(
                        "data_changed",
                        atom.name,
                        change.unit.word,
                        "the new value of %s has another size or holds addresses, which cannot be written" % atom.name,
                        "Restart into the new version.",
                    )
                )
                continue
            new = atom.content or bytes(atom.size)
            values.append(ChangedValue(atom.name, address, before.hex(), new.hex()))
        return sorted(values, key=lambda value: value.offset)

    def _refused(self, code: str, place: _Placed, why: str, remedy: str = "") -> tuple[str, int] | None:
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


def _section_kind(atom: Atom) -> str:
    return RODATA if atom.constant and atom.kind == DATA else atom.kind


def _symbol_name(one: Included) -> str:
    atom = one.atom
    if atom.name:
        return atom.name
    if atom.parent:
        return atom.parent + ".cold"
    owner = one.change.owner(atom)
    return "%s.%s" % (owner.name if owner else "unit", "const")


def _takes_address(user: Atom, reference: Field) -> bool:
    """True when a reference to a function is to its entry and not a call: the function's one address in the process."""
    if reference.kind == R_64 or reference.kind in (R_32, R_32S):
        return reference.addend == 0
    if user.kind != TEXT or calls_directly(user, reference):
        return False
    return reference.addend == -4
