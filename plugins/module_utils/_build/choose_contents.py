# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes into the patch: changed functions, and everything new that they reach; and what keeps a change out of it.

Unchanged functions and variables stay where they are and are referred to: the object's variables keep their values.
A changed constant is brought along with every function that reads it. All reasons for a refusal are collected.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .._patch.content import BSS, DATA, TEXT
from .atoms import THREAD_LOCAL, Atom, Field
from .changed_functions import UnitChange, is_function
from .changed_units import ChangedUnits
from .place_units import ArtifactSymbols
from .ran_already import assembler_code, code_that_ran
from .relocated_fields import TLS
from .request import Refusal

# More than this is an upgrade, not a fix.
MOST_FUNCTIONS = 256
MOST_BYTES = 1 << 20
_LAMBDA = re.compile(r"(_Z.*?)Ul(.*?)E\d*_")
# Virtual function tables, those of classes under construction, and run-time types (Itanium C++ ABI, 5.1.4.1).
_OF_A_CLASS = re.compile(r"_ZT[VTCIS]")


@dataclass(frozen=True)
class Included:
    """An atom that goes into the patch; `replaces` when the object's function is to branch to it."""

    change: UnitChange
    atom: Atom
    replaces: bool


@dataclass
class PatchContents:
    """What goes in, in a fixed order, and the refusals."""

    included: list[Included] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    changed_data: list[tuple[UnitChange, Atom]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def replaced(self) -> list[Included]:
        """The functions that the object's own will branch to."""
        return [one for one in self.included if one.replaces]


class Chooser:
    """Chooses the contents of a patch over all changed units."""

    def __init__(self, units: ChangedUnits, artifact: ArtifactSymbols, data_changes: tuple[str, ...]) -> None:
        self.units = units
        self.artifact = artifact
        self.changes = units.changes
        self.data_changes = data_changes
        self.contents = PatchContents()
        self._chosen: dict[int, Included] = {}
        self._constants: set[int] = set()
        self._refused: set[tuple[str, str]] = set()
        self._replaced_at: set[int] = set()
        self._new: set[str] = set()

    def choose(self) -> PatchContents:
        """All of it."""
        for change in self.changes:
            for atom in change.changed():
                self._changed_atom(change, atom)
            for refusal in code_that_ran(change) + assembler_code(change):
                self.refuse(refusal.code, refusal.symbol, refusal.file, refusal.reason)
            self._check_lambdas(change)
        self._check_copies()
        queue = list(self.contents.included)
        while queue:
            before = len(self.contents.included)
            one = queue.pop(0)
            for reference in one.atom.fields:
                self._reach(one.change, one.atom, reference)
            frame = one.change.after.frames.get(id(one.atom)) if one.change.unwinds() else None
            for reference in (*frame.common_fields, *frame.fields[1:]) if frame else ():
                self._reach(one.change, one.atom, reference)
            queue += self.contents.included[before:]
        self.contents.included.sort(
            key=lambda one: (self.changes.index(one.change), one.change.after.atoms.index(one.atom))
        )
        functions = sum(1 for one in self.contents.included if is_function(one.atom))
        size = sum(one.atom.size for one in self.contents.included if one.atom.kind != BSS)
        if functions > MOST_FUNCTIONS or size > MOST_BYTES:
            self.refuse(
                "patch_too_large",
                "",
                "",
                "the patch would hold %d functions and %d bytes" % (functions, size),
            )
        return self.contents

    def refuse(self, code: str, symbol: str, file: str, reason: str, remedy: str = "") -> None:
        """Note one refusal, once."""
        if (code, symbol) not in self._refused:
            self._refused.add((code, symbol))
            self.contents.refusals.append(Refusal(code, symbol, file, reason, remedy))

    def include(self, change: UnitChange, atom: Atom, replaces: bool) -> None:
        """Take an atom into the patch."""
        if id(atom) not in self._chosen:
            if change.has_copies(atom) and not replaces:
                # One of all units' copies of an inline function or template.
                if self._new.intersection(atom.names):
                    return
                self._new.update(atom.names)
            self._chosen[id(atom)] = one = Included(change, atom, replaces)
            self.contents.included.append(one)

    def _changed_atom(self, change: UnitChange, atom: Atom) -> None:
        file = change.unit.word
        if atom.kind == THREAD_LOCAL:
            self.refuse(
                "tls_unsupported",
                atom.name,
                file,
                "the initial value of the thread-local %s changes" % atom.name,
            )
        elif atom.kind == TEXT:
            self._changed_function(change, atom)
        elif atom.constant:
            self._changed_constant(change, atom)
        elif atom.name in self.data_changes:
            self.contents.changed_data.append((change, atom))
        elif change.address(atom) is not None:
            what = "size" if atom.size != _size(change.original(atom)) else "initial value"
            self.refuse(
                "data_changed" if what != "size" else "layout_changed",
                atom.name,
                file,
                "the %s of the variable %s changes; the running process has its own value of it" % (what, atom.name),
                "Restart into the new version, or write the fix without changing this variable."
                if what == "size"
                else "",
            )

    def _changed_function(self, change: UnitChange, atom: Atom) -> None:
        address = change.address(atom)
        if address is None or address in self._replaced_at:
            # Inlined everywhere, or left out by the linker; or another unit has the same inline function or template.
            return
        if atom.name == "main":
            self.refuse("entry_changed", "main", change.unit.word, "main is running already and is not entered again")
            return
        if change.indirect_functions().intersection(atom.names):
            self.refuse(
                "construct_unsupported",
                atom.name,
                change.unit.word,
                "%s chose an implementation (IFUNC) when the process started, and is not asked again" % atom.name,
                "Change the implementations, or restart into the new version.",
            )
            return
        self._replaced_at.add(address)
        self.include(change, atom, True)

    def _changed_constant(self, change: UnitChange, atom: Atom) -> None:
        """Bring the new constant along, and everything that reads it."""
        if _OF_A_CLASS.match(atom.name):
            self.refuse(
                "layout_changed",
                atom.name,
                change.unit.word,
                "the virtual functions or the run-time type of a class change (%s): existing objects have the old ones"
                % atom.name,
            )
            return
        if id(atom) in self._constants:
            return
        self._constants.add(id(atom))
        if change.address(atom) is None and atom.local:
            return
        if not atom.local and self.units.used_elsewhere(atom.name):
            self.refuse(
                "data_changed",
                atom.name,
                change.unit.word,
                "the constant %s changes, and files that the change does not reach read it" % atom.name,
                "Restart into the new version.",
            )
        for user in change.users(atom):
            if user.kind == TEXT:
                if change.original(user) is not None:
                    self._changed_function(change, user)
            elif user.constant:
                if change.original(user) is not None:
                    self._changed_constant(change, user)
            elif change.original(user) is not None:
                self.refuse(
                    "data_changed",
                    atom.name,
                    change.unit.word,
                    "the constant %s changes, and the variable %s of the running process points to the old one"
                    % (atom.name, user.name),
                    "Restart into the new version.",
                )
        self.include(change, atom, False)

    def _reach(self, change: UnitChange, user: Atom, reference: Field) -> None:
        """Follow one reference of an included atom."""
        target = reference.atom
        if target is None:
            self._reach_other_unit(change, user, reference.name)
            return
        if reference.kind in TLS or target.kind == THREAD_LOCAL:
            if change.original(target) is None:
                self._refuse_thread_local(change, user, target.name)
            return
        if not target.name or change.original(target) is None or change.address(target) is None:
            if change.has_copies(target):
                if self.artifact.defines(target.name):
                    return  # the object's own copy of an inline function, template or class
                self._check_one_for_all(change, target)
            self.include(change, target, False)
        elif change.has_places_in(target, user):
            self._moved_labels(change, target, user)

    def _moved_labels(self, change: UnitChange, data: Atom, function: Atom) -> None:
        """Bring along the table of a function's own labels, whose addresses are others now though it looks the same."""
        if data.constant:
            self._changed_constant(change, data)
            return
        self.refuse(
            "data_changed",
            data.name,
            change.unit.word,
            "the variable %s of the running process holds addresses inside %s, which is replaced"
            % (data.name, function.name),
            "Restart into the new version; with the table of labels declared const, the program could be patched.",
        )

    def _check_lambdas(self, change: UnitChange) -> None:
        """The lambda expressions of a function are numbered: one more or less, and the others' names mean others."""
        before = _lambdas(list(change.before.named) if change.before else [])
        after = _lambdas(list(change.after.named))
        for key in sorted(set(before) & set(after)):
            moved = before[key] ^ after[key]
            changed = [name for atom in change.changed() for name in atom.names if name in after[key]]
            if moved and changed:
                self.refuse(
                    "construct_unsupported",
                    changed[0],
                    change.unit.word,
                    "lambda expressions come or go where %s stands: the running process knows them by their numbers"
                    % changed[0],
                    "Write the fix without another lambda expression of this kind in this function, or restart.",
                )

    def _check_copies(self) -> None:
        """Of what several units have a copy of, the object has one: it must be from a unit that is compiled anew."""
        replaced = {name for one in self.contents.replaced() for name in one.atom.names}
        for change in self.changes:
            for atom in change.changed():
                copied = is_function(atom) and change.has_copies(atom) and change.address(atom) is None
                if copied and self.artifact.defines(atom.name) and not replaced.intersection(atom.names):
                    self.refuse(
                        "symbol_ambiguous",
                        atom.name,
                        change.unit.word,
                        "the object's copy of %s is from a file that the change does not reach" % atom.name,
                        "Restart into the new version.",
                    )

    def _check_one_for_all(self, change: UnitChange, atom: Atom) -> None:
        """A variable of an inline function or template is one for all libraries of the process, if others have it."""
        if self.artifact.is_library and atom.kind in (DATA, BSS) and not atom.constant:
            symbols = [symbol for symbol in change.after.file.symbols() if symbol.name in atom.names]
            if any(not symbol.visibility for symbol in symbols):
                self.refuse(
                    "construct_unsupported",
                    atom.name,
                    change.unit.word,
                    "the new variable %s of an inline function or template may be another library's, too" % atom.name,
                )

    def _reach_other_unit(self, change: UnitChange, user: Atom, name: str) -> None:
        """A global that another changed unit defines: take it along when it is new."""
        for other in self.changes:
            atom = other.after.named.get(name)
            if atom is not None and not atom.local:
                if other.original(atom) is None and not self._exists(name):
                    if atom.kind == THREAD_LOCAL:
                        self._refuse_thread_local(change, user, name)
                    else:
                        self.include(other, atom, False)
                return

    def _refuse_thread_local(self, change: UnitChange, user: Atom, name: str) -> None:
        self.refuse(
            "tls_unsupported",
            name,
            change.unit.word,
            "%s uses the new thread-local %s: the threads that run were made without room for it" % (user.name, name),
        )

    def _exists(self, name: str) -> bool:
        return any(
            c.before is not None and name in c.before.named and c.placed and name in c.placed.symbols
            for c in self.changes
        )


def _size(atom: Atom | None) -> int:
    return atom.size if atom else 0


def _lambdas(names: list[str]) -> dict[tuple[str, str], set[str]]:
    """The functions of lambda expressions by where they stand and how they are called (Itanium C++ ABI, 5.1.8)."""
    found: dict[tuple[str, str], set[str]] = {}
    for name in names:
        match = _LAMBDA.match(name)
        if match:
            found.setdefault((match.group(1), match.group(2)), set()).add(name)
    return found
