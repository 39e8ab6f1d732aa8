# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What differs between two compilations of a unit, function by function and variable by variable."""

from __future__ import annotations

from dataclasses import dataclass, field

from .._elf.object_file import STB_GLOBAL, STB_LOCAL, STT_IFUNC
from .._patch.content import TEXT
from .atoms import Atom, UnitCode
from .compile_command import is_cplusplus
from .link_inputs import Unit
from .place_units import PlacedUnit


@dataclass
class UnitChange:
    """One unit of the artifact, compiled from the original and from the changed source.

    `before` and `placed` are None for a unit that only the changed tree has.
    """

    unit: Unit
    before: UnitCode | None
    after: UnitCode
    placed: PlacedUnit | None
    original_names: dict[str, str] = field(default_factory=dict)
    also_changed: frozenset[str] = frozenset()
    _indirect: frozenset[str] | None = None
    _unwinds: bool | None = None
    _weak: frozenset[str] | None = None

    def original(self, atom: Atom) -> Atom | None:
        """The same function or variable in the original compilation, None for a new or anonymous one."""
        if self.before is None or not atom.name:
            return None
        for name in atom.names:
            found = self.before.named.get(self.original_names.get(name, name))
            if found is not None:
                return found
        return None

    def differs(self, atom: Atom) -> bool:
        """True when a named atom of the changed compilation is not what it was, or was not there."""
        old = self.original(atom)
        if old is None or self.before is None or atom.name in self.also_changed:
            return True
        return self.before.digest(old) != self.after.digest(atom)

    def changed(self) -> list[Atom]:
        """The named atoms that both compilations have and the artifact uses, and that differ."""
        return [
            atom
            for atom in self.after.atoms
            if atom.name and self.original(atom) is not None and self.is_used(atom) and self.differs(atom)
        ]

    def address(self, atom: Atom) -> int | None:
        """Where the artifact has the original of this atom (link-time virtual address), None where it has none."""
        old = self.original(atom)
        if old is None or self.placed is None:
            return None
        names = sorted((name for name in old.names if name in self.placed.symbols), key=self.is_overridden)
        return self.placed.symbols[names[0]] if names else None

    def is_overridden(self, name: str) -> bool:
        """True for a weak name of this unit that another unit of the artifact defines, which is then used."""
        return self.placed is not None and name in self.placed.overridden

    def is_used(self, atom: Atom) -> bool:
        """False for a definition that the linker passed over for another unit's, under all its names."""
        return not atom.names or not all(self.is_overridden(name) for name in atom.names)

    def size(self, atom: Atom) -> int:
        """The size in bytes of the original of this atom in the artifact."""
        old = self.original(atom)
        if old is None or self.placed is None:
            return 0
        return max((self.placed.sizes.get(name, 0) for name in old.names), default=0)

    def indirect_functions(self) -> frozenset[str]:
        """The names of the IFUNCs that the changed compilation defines: each is called by what a resolver chose."""
        if self._indirect is None:
            symbols = self.after.file.symbols()
            self._indirect = frozenset(s.name for s in symbols if s.kind == STT_IFUNC and s.is_defined())
        return self._indirect

    def has_copies(self, atom: Atom) -> bool:
        """True for what each unit that needs it has a copy of, and the object one: inline functions, templates."""
        if self._weak is None:
            symbols = self.after.file.symbols()
            self._weak = frozenset(
                s.name for s in symbols if s.is_defined() and s.binding not in (STB_LOCAL, STB_GLOBAL)
            )
        return not self._weak.isdisjoint(atom.names)

    def unwinds(self) -> bool:
        """True when exceptions may pass through the unit's functions: C++, or -fexceptions."""
        if self._unwinds is None:
            asked = [word for word in self.unit.command.words() if word in ("-fexceptions", "-fno-exceptions")]
            has_handlers = any(frame.handles for frame in self.after.frames.values())
            self._unwinds = has_handlers or (asked[-1] == "-fexceptions" if asked else is_cplusplus(self.unit.source))
        return self._unwinds

    def users(self, atom: Atom) -> list[Atom]:
        """The atoms of the changed compilation that refer to this one; a cold part counts as its function."""
        found = []
        for other in self.after.atoms:
            if any(f.atom is atom for f in other.fields):
                owner = self.owner(other)
                if owner is not None and owner not in found:
                    found.append(owner)
        return found

    def has_places_in(self, data: Atom, function: Atom) -> bool:
        """True when data holds addresses inside a function (labels as values), which are others in its new code."""
        return data.kind != TEXT and any(
            f.atom is not None
            and f.atom.kind == TEXT
            and self.owner(f.atom) is function
            and (f.atom is not function or f.addend != 0)
            for f in data.fields
        )

    def owner(self, atom: Atom) -> Atom | None:
        """The named atom that this one belongs to: itself, or for an anonymous one who refers to it first."""
        if atom.name:
            return atom
        if atom.parent:
            return self.after.named.get(atom.parent)
        for other in self.after.atoms:
            if other is not atom and other.name and any(f.atom is atom for f in other.fields):
                return other
        return None


def is_function(atom: Atom) -> bool:
    """True for code that the source names."""
    return atom.kind == TEXT and bool(atom.name)
