# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""From chosen atoms to the content of a patch file: sections laid out, symbols named, every reference resolved."""

from __future__ import annotations

import hashlib
from bisect import bisect_right

from .._elf.object_file import SHF_EXECINSTR, STT_FUNC, STT_IFUNC, STT_NOTYPE
from .._patch.content import BSS, DATA, RODATA, TEXT, Patch, Relocation, Section, Symbol
from .._patch.manifest import BoundObject, ChangedValue, ColdCode, Manifest, ReplacedFunction
from .atoms import Atom
from .calling_contract import argument_registers
from .changed_units import ChangedUnits
from .choose_contents import Included, PatchContents
from .entry_room import ENTRY_BYTES, branched_into, overwritable
from .patch_frames import add_frames
from .place_units import ArtifactSymbols
from .prove_source import DeployedObject
from .references import DynamicNames
from .relocated_fields import R_PC32
from .request import BuildRequest, Refusal
from .resolve_fields import FieldResolver, Placed, UniqueNames

_LEAST_FUNCTION_ALIGN = 16


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
        self.refusals: list[Refusal] = []
        self._names = UniqueNames()
        self.resolver = FieldResolver(contents, symbols, DynamicNames(deployed.file), self._names, self.refusals)
        self._code_starts = sorted(
            {
                symbol.value
                for symbol in symbols.artifact.symbols()
                if symbol.kind in (STT_FUNC, STT_IFUNC, STT_NOTYPE)
                and symbol.is_defined()
                and symbols.artifact.sections[symbol.section].flags & SHF_EXECINSTR
            }
        )

    def assemble(self, built: dict[str, str], arch: str, quiescent: bool) -> Patch:
        """The patch; look at `refusals` before using it. `quiescent`: activating it needs no less than that."""
        sections = self._lay_out()
        contents = [bytearray(section.content) for section in sections]
        relocations: list[Relocation] = []
        for place in self.resolver.placed.values():
            for reference in place.one.atom.fields:
                resolved = self.resolver.resolve(place, reference, contents[place.section])
                if resolved is not None:
                    at = place.offset + resolved.offset
                    relocations.append(Relocation(place.section, at, resolved.kind, resolved.symbol, resolved.addend))
        stubs = self._indirect_calls(sections, contents, relocations)
        stubs += add_frames(self.resolver, sections, contents, relocations)
        sections = [
            Section(s.name, s.kind, s.align, s.size if s.kind == BSS else len(content), bytes(content))
            for s, content in zip(sections, contents)
        ]
        placed = self.resolver.placed.values()
        symbols = tuple(
            Symbol(p.symbol, p.section, p.offset, p.one.atom.size, p.one.atom.kind == TEXT)
            for p in self.resolver.placed.values()
        )
        symbols += stubs
        functions = tuple(sorted((self._replaced(p) for p in placed if p.one.replaces), key=lambda f: f.offset))
        manifest = Manifest(
            id=self.request.name,
            version=self.request.version,
            object=BoundObject(self._object_name(), self.deployed.build_id, arch),
            functions=functions,
            cold=self._cold_code(),
            data=tuple(self._changed_values()),
            references=self.resolver.references(),
            new_symbols=tuple(sorted(p.symbol for p in placed if p.one.atom.name and not p.one.replaces)),
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
                self.resolver.placed[id(atom)] = Placed(one, self._names.name(_symbol_name(one)), len(sections), offset)
                if kind != BSS:
                    # int3 between functions: whoever gets there by mistake is stopped.
                    body += (b"\xcc" if kind == TEXT else b"\0") * (offset - len(body)) + (
                        atom.content or bytes(atom.size)
                    )
                size = offset + atom.size
            if size:
                sections.append(Section(name, kind, align, size, bytes(body)))
        return sections

    def _indirect_calls(
        self, sections: list[Section], contents: list[bytearray], relocations: list[Relocation]
    ) -> tuple[Symbol, ...]:
        """Code behind all other: for each IFUNC of the object that is called, a branch to what its slot says."""
        stubs = []
        for name, slot in self.resolver.indirect.items():
            number = next(number for number, section in enumerate(sections) if section.kind == TEXT)
            code = contents[number]
            code += b"\xcc" * (-len(code) % _LEAST_FUNCTION_ALIGN)
            relocations.append(Relocation(number, len(code) + 2, R_PC32, slot, -4))
            stubs.append(Symbol(name, number, len(code), 6, True))
            code += b"\xff\x25" + bytes(4)  # jmp *slot(%rip)
        return tuple(stubs)

    def _replaced(self, place: Placed) -> ReplacedFunction:
        change, atom = place.one.change, place.one.atom
        address, size = change.address(atom), change.size(atom)
        raw = self.deployed.file.read(address, size) if address is not None else None
        if address is None or not size or raw is None:
            self.resolver.refuse("construct_unsupported", place, "its original has no size in the object")
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
            argument_registers(self.units, change, atom),
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
