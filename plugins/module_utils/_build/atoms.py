# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A compiled unit cut into atoms: each function, variable, string or table by itself, with what it refers to.

Units are compiled with a section for each function and variable, so most sections are one atom. Sections that hold more
(strings, merged constants, sections named in the source) are cut at their symbols. An atom is named when the source
names it; strings, switch tables and the compiler's own constants are anonymous and known by their content alone, and so
is a function's cold part, which belongs to it.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

from .._elf.object_file import (
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_MERGE,
    SHF_STRINGS,
    SHF_TLS,
    SHF_WRITE,
    SHN_COMMON,
    SHT_NOBITS,
    SHT_PROGBITS,
    STB_LOCAL,
    STB_WEAK,
    STT_FILE,
    STT_SECTION,
    ObjectFile,
    Relocation,
    Section,
    Symbol,
)
from .._patch.content import BSS, DATA, RODATA, TEXT
from .disassembly import instruction_ends
from .relocated_fields import PC_RELATIVE, masked
from .unwind_frames import BEGIN_AT, frame_records

THREAD_LOCAL = "tls"
# Sections that tell where functions are, for unwinding and for tracers; no code calls or branches by them.
ABOUT_CODE = (".eh_frame", "__patchable_function_entries", "__mcount_loc")
_COLD = re.compile(r"(.+)\.cold(\.\d+)?$")
# Constants that the compiler makes up; their numbers mean nothing.
_COMPILERS_OWN = re.compile(
    r"(__func__|__FUNCTION__|__PRETTY_FUNCTION__|C|CSWTCH|\.?LC|\.L.*|__compound_literal|GCC_except_table)\.?\d*(\.\d+)*$"
)
_FRAMES = ".eh_frame"
# GCC names what initialises the variables of a file after one of them, which may be another one after a change.
_STATIC_INITIALISER = re.compile(r"(_GLOBAL__sub_[ID]_).+")
_INITIALISERS = re.compile(r"\.(preinit_array|init_array|fini_array|ctors|dtors)(\.|$)")


@dataclass(frozen=True)
class Field:
    """One relocated field: `offset` in its atom, the relocation's type, and where it leads.

    `atom` is None for what the unit does not define; `addend` is counted from the start of the atom or of the symbol.
    `name`: of a global's names the one that is meant; `symbol`: the one in the relocation, of a local, too.
    """

    offset: int
    kind: int
    atom: Atom | None
    name: str
    addend: int
    symbol: str = ""


@dataclass(eq=False)
class Atom:
    """A piece of one section; `names` is empty for an anonymous one, the first name is the one it goes by."""

    section: str
    kind: str
    constant: bool
    is_function: bool
    names: tuple[str, ...]
    local: bool
    align: int
    content: bytes
    size: int
    fields: list[Field] = field(default_factory=list)
    parent: str = ""

    @property
    def name(self) -> str:
        """The name that the source gave it, "" for an anonymous atom."""
        return self.names[0] if self.names else ""

    def masked(self) -> bytes:
        """The content without what the linker fills in."""
        return masked(self.content, [(f.offset, f.kind) for f in self.fields])


@dataclass(frozen=True)
class Frame:
    """What the unwinder must know of one function: its record and the common one, with their relocated fields.

    `handles`: the function has something to do when an exception passes.
    """

    common: bytes
    common_fields: tuple[Field, ...]
    content: bytes
    fields: tuple[Field, ...]
    handles: bool


class UnitCode:
    """All atoms of one relocatable object."""

    def __init__(self, unit: ObjectFile, path: str) -> None:
        """`path` is where the object lies, for the disassembler (asked only where a reference is not clear without)."""
        self.file = unit
        self.path = path
        self.atoms: list[Atom] = []
        self.named: dict[str, Atom] = {}
        self.initialisers: list[Atom] = []
        self.optional = frozenset(s.name for s in unit.symbols() if not s.is_defined() and s.binding == STB_WEAK)
        self.frames: dict[int, Frame] = {}
        self._in_section: dict[int, tuple[list[int], list[Atom]]] = {}
        self._ends: dict[int, list[int]] | None = None
        self._digests: dict[int, str] = {}
        self._canonical: dict[str, str] = {}
        names: dict[int, list[Symbol]] = {}
        for symbol in unit.symbols():
            if symbol.is_defined() and symbol.name and symbol.kind not in (STT_SECTION, STT_FILE):
                names.setdefault(symbol.section, []).append(symbol)
            elif symbol.section == SHN_COMMON:
                atom = Atom("COMMON", BSS, False, False, (symbol.name,), False, symbol.value, b"", symbol.size)
                self._add(atom)
        for section in unit.sections:
            if (
                section.name != _FRAMES
                and section.flags & SHF_ALLOC
                and (section.kind in (SHT_PROGBITS, SHT_NOBITS) or _INITIALISERS.match(section.name))
            ):
                self._cut(section, names.get(section.number, []))
        for section in unit.sections:
            if section.number in self._in_section:
                self._read_fields(section)
        frames = unit.section(_FRAMES)
        if frames is not None:
            self._read_frames(frames)

    def _add(self, atom: Atom) -> None:
        self.atoms.append(atom)
        for name in atom.names:
            self.named[name] = atom

    def _cut(self, section: Section, symbols: list[Symbol]) -> None:
        content = self.file.content(section)
        starts = sorted({symbol.value for symbol in symbols if symbol.value < section.size})
        if section.flags & SHF_MERGE and section.entry_size:
            starts = _merged_pieces(section, content)
        elif section.size and (not starts or starts[0]):
            starts.insert(0, 0)
        atoms = []
        for start, end in zip(starts, [*starts[1:], section.size]):
            here = sorted((s for s in symbols if s.value == start), key=lambda s: (s.binding == STB_LOCAL, s.name))
            atom = _atom(section, start, content[start:end], here)
            atoms.append(atom)
            self._add(atom)
            if _INITIALISERS.match(section.name):
                self.initialisers.append(atom)
        self._in_section[section.number] = (starts, atoms)

    def _read_fields(self, section: Section) -> None:
        starts, atoms = self._in_section[section.number]
        for entry in self.file.relocations(section):
            place = bisect_right(starts, entry.offset) - 1
            if 0 <= place < len(atoms):
                atoms[place].fields.append(self._field(section, entry, starts[place]))
        for atom in atoms:
            atom.fields.sort(key=lambda f: f.offset)

    def _field(self, section: Section, entry: Relocation, start: int) -> Field:
        """The field of a relocation of a section, for what begins at `start` there."""
        target = self.file.symbols()[entry.symbol]
        offset = entry.offset - start
        if not target.is_defined():
            common = self.named.get(target.name) if target.section == SHN_COMMON else None
            return Field(offset, entry.kind, common, target.name, entry.addend)
        found = self._lying_at(section, entry.offset, entry.kind, target, entry.addend)
        if found is None:
            return Field(offset, entry.kind, None, target.name, entry.addend)
        atom, at = found
        name = atom.name if atom.local or target.kind == STT_SECTION else target.name
        return Field(offset, entry.kind, atom, name, target.value + entry.addend - at, target.name)

    def _read_frames(self, section: Section) -> None:
        relocations = sorted(self.file.relocations(section))
        offsets = [entry.offset for entry in relocations]

        def fields(start: int, size: int) -> tuple[Field, ...]:
            some = relocations[bisect_left(offsets, start) : bisect_left(offsets, start + size)]
            return tuple(self._field(section, entry, start) for entry in some)

        for record in frame_records(self.file.content(section)):
            own = fields(record.at, len(record.content))
            if own and own[0].offset == BEGIN_AT and own[0].atom is not None and not own[0].addend:
                common = fields(record.common_at, len(record.common))
                self.frames[id(own[0].atom)] = Frame(record.common, common, record.content, own, record.handles)

    def _lying_at(self, section: Section, at: int, kind: int, target: Symbol, addend: int) -> tuple[Atom, int] | None:
        """The atom that a reference means, and where in its section it starts."""
        if target.section not in self._in_section:
            return None
        starts, atoms = self._in_section[target.section]
        if not atoms:
            return None
        wanted = target.value
        if target.kind == STT_SECTION and len(atoms) > 1:
            # Named by section and offset: the addend also holds the distance from the field to the instruction's end.
            wanted = addend
            if kind in PC_RELATIVE and section.flags & SHF_EXECINSTR:
                wanted += self._distance_to_end(section, at)
        place = min(max(bisect_right(starts, wanted) - 1, 0), len(atoms) - 1)
        return atoms[place], starts[place]

    def _distance_to_end(self, section: Section, at: int) -> int:
        if self._ends is None:
            self._ends = instruction_ends(self.path, self.file)
        ends = self._ends.get(section.number, [])
        place = bisect_right(ends, at)
        return ends[place] - at if place < len(ends) else 4

    def name_at(self, section: int, offset: int) -> str:
        """The name of the atom that starts at an offset of a section, "" for none."""
        starts, atoms = self._in_section.get(section, ([], []))
        place = bisect_right(starts, offset) - 1
        return atoms[place].name if atoms and place >= 0 and starts[place] == offset else ""

    def digest(self, atom: Atom) -> str:
        """Of an atom's content and of what it refers to: equal in two units for atoms that mean the same.

        Named atoms count by their name, anonymous ones by their own digest.
        """
        known = self._digests.get(id(atom))
        if known is None:
            self._digests[id(atom)] = "in progress"
            text = [atom.kind, str(atom.size), atom.masked().hex(), str(atom.constant)]
            text += ["%d %d %s" % (f.offset, f.kind, self.meaning(f)) for f in (*atom.fields, *self.handlers(atom))]
            known = self._digests[id(atom)] = hashlib.sha256(
                "\n".join(text).encode("utf-8", "surrogateescape")
            ).hexdigest()
        return known

    def handlers(self, atom: Atom) -> tuple[Field, ...]:
        """The reference of a function to the table of its handlers (.gcc_except_table), if it has one."""
        frame = self.frames.get(id(atom))
        return frame.fields[1:] if frame else ()

    def meaning(self, reference: Field) -> str:
        """What a reference leads to, in words that are the same in two compilations of a unit."""
        if reference.atom is None:
            return "undefined %s %+d" % (reference.name, reference.addend)
        if reference.atom.name:
            return "defined %s %+d" % (self.canonical(reference.name), reference.addend)
        return "content %s %+d" % (self.digest(reference.atom), reference.addend)

    def rename(self, names: dict[str, str]) -> None:
        """Let atoms go by other names (this unit's name -> the other compilation's) when meanings are compared."""
        self._canonical = names
        self._digests.clear()

    def canonical(self, name: str) -> str:
        """The name that an atom goes by when two compilations are compared."""
        return self._canonical.get(name, name)


def _atom(section: Section, start: int, content: bytes, symbols: list[Symbol]) -> Atom:
    if section.flags & SHF_TLS:
        kind = THREAD_LOCAL
    elif section.flags & SHF_EXECINSTR:
        kind = TEXT
    elif section.kind == SHT_NOBITS:
        kind = BSS
    elif section.flags & SHF_WRITE:
        kind = DATA
    else:
        kind = RODATA
    constant = kind in (TEXT, RODATA) or section.name.startswith(".data.rel.ro")
    align = max(section.align, 1)
    while start % align:
        align //= 2
    names = tuple(_STATIC_INITIALISER.sub(r"\1", symbol.name) for symbol in symbols)
    sizes = [symbol.size for symbol in symbols if symbol.size]
    size = min(max(sizes), len(content)) if sizes else len(content)
    parent = ""
    cold = _COLD.match(names[0]) if names else None
    if cold and kind == TEXT:
        parent, names = cold.group(1), ()
    elif (
        names and constant and kind != TEXT and all(_COMPILERS_OWN.match(name) for name in names)
    ) or section.flags & SHF_MERGE:
        names = ()
    local = all(symbol.binding == STB_LOCAL for symbol in symbols)
    body = b"" if section.kind == SHT_NOBITS else content[:size]
    return Atom(
        section.name,
        kind,
        constant,
        kind == TEXT and not parent,
        names,
        local,
        align,
        body,
        size,
        parent=parent,
    )


def _merged_pieces(section: Section, content: bytes) -> list[int]:
    """Where each string or constant of a mergeable section starts."""
    width = section.entry_size
    if not section.flags & SHF_STRINGS:
        return list(range(0, section.size, width))
    starts, at = [], 0
    while at < len(content):
        starts.append(at)
        end = at
        while end < len(content) and any(content[end : end + width]):
            end += width
        at = end + width
    return starts
