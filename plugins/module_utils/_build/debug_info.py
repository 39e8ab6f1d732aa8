# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a unit's debug information says: its types, the prototypes of its functions, the types of its variables.

DWARF 5, sections 3.2 (namespaces), 3.3 (functions), 4.1 (variables), 5 (types); 7.7.3 for locations. Types are
described in words, so that two compilations can be compared: named structures by their name within other types, and by
their members where they are defined.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any, Iterator

from .._elf.object_file import STT_SECTION, ObjectFile
from .atoms import UnitCode
from .relocated_fields import R_64

_DEFINITIONS = {
    "DW_TAG_structure_type": "struct",
    "DW_TAG_class_type": "struct",
    "DW_TAG_union_type": "union",
    "DW_TAG_enumeration_type": "enum",
}
_QUALIFIERS = ("DW_TAG_const_type", "DW_TAG_volatile_type", "DW_TAG_restrict_type", "DW_TAG_atomic_type")
_ARRAY = "DW_TAG_array_type"
_POINTERS = ("DW_TAG_pointer_type", "DW_TAG_reference_type", "DW_TAG_rvalue_reference_type")
_BLOCKS = ("DW_TAG_lexical_block", "DW_TAG_try_block", "DW_TAG_catch_block")
_DW_OP_ADDR, _DW_OP_PIECE, _DW_OP_ADDRX = 0x03, 0x93, 0xA1
_ENUMERATOR = "enumerator"
# What a DIE does not say itself stands with its declaration, or with the one for all copies of an inline function.
_ELSEWHERE = ("DW_AT_specification", "DW_AT_abstract_origin")


@dataclass(frozen=True)
class Layout:
    """The size in bytes of a type and its members: (name, place, type), or (name, value, "enumerator")."""

    size: int
    members: tuple[tuple[str, str, str], ...]

    def is_enumeration(self) -> bool:
        """True for a type that only gives names to numbers."""
        return bool(self.members) and all(member[2] == _ENUMERATOR for member in self.members)


@dataclass(frozen=True)
class Prototype:
    """What callers of a function rely on, in words."""

    returns: str
    parameters: tuple[str, ...]


@dataclass
class DebugInfo:
    """Of one unit.

    `types`: each shared type under "struct NAME" and the like, an unnamed one under the typedef that names it; the
    names of an enumeration without a name under "enumerator NAME". `static_locals`: (function, variable, how many of
    that name before it) -> name of its atom. `variables`: name of the atom of a variable that outlives a call -> its
    type, with all that is defined inside functions or has no name written out.
    """

    types: dict[str, set[Layout]] = field(default_factory=dict)
    prototypes: dict[str, Prototype] = field(default_factory=dict)
    static_locals: dict[tuple[str, str, int], str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)


def read_debug_info(code: UnitCode) -> DebugInfo:
    """The debug information of a compiled unit."""
    from elftools.elf.elffile import ELFFile

    info = DebugInfo()
    elf = ELFFile(io.BytesIO(_relocated(code.file)))
    if not elf.has_dwarf_info():
        return info
    reader = _Reader(code, info)
    for unit in elf.get_dwarf_info(relocate_dwarf_sections=False).iter_CUs():
        reader.unit(unit.get_top_DIE())
    return info


def _relocated(unit: ObjectFile) -> bytes:
    """The object with its debug information relocated; pyelftools takes a second for what takes 20 ms here."""
    raw = bytearray(unit.raw)
    symbols = unit.symbols()
    for section in unit.sections:
        if section.name.startswith(".debug_"):
            for entry in unit.relocations(section):
                width = 8 if entry.kind == R_64 else 4
                value = symbols[entry.symbol].value + entry.addend & (1 << 8 * width) - 1
                at = section.offset + entry.offset
                raw[at : at + width] = value.to_bytes(width, "little")
    return bytes(raw)


class _Reader:
    def __init__(self, code: UnitCode, info: DebugInfo) -> None:
        self.code = code
        self.info = info
        self.words: dict[int, str] = {}
        self.shared: dict[int, str] = {}
        self.known_by_typedef: set[int] = set()
        self.targets = self._targets(".debug_info")
        self.address_table = self._targets(".debug_addr")
        self.address_base = 0

    def _targets(self, section_name: str) -> dict[int, str]:
        """The names of the atoms to which the relocated fields of a section lead, by the field's offset."""
        found = {}
        section = self.code.file.section(section_name)
        symbols = self.code.file.symbols()
        for entry in self.code.file.relocations(section) if section else []:
            symbol = symbols[entry.symbol]
            is_section = symbol.kind == STT_SECTION
            name = self.code.name_at(symbol.section, entry.addend) if is_section else symbol.name
            if name:
                found[entry.offset] = name
        return found

    def unit(self, top: Any) -> None:
        """Everything of one compiled unit."""
        self.address_base = _value(top, "DW_AT_addr_base")
        self._list_shared(top, "")
        for die, scope in self._declarations(top, ""):
            self._read(die, scope)

    def _declarations(self, parent: Any, scope: str) -> Iterator[tuple[Any, str]]:
        """What stands in the unit, its namespaces and classes, each with the prefix of its name."""
        for die in parent.iter_children():
            yield die, scope
            if die.tag == "DW_TAG_namespace" or die.tag in _DEFINITIONS:
                yield from self._declarations(die, "%s%s::" % (scope, _name(die)))

    def _list_shared(self, top: Any, scope: str) -> None:
        """Types known outside functions go by their full names, all others by what they hold."""
        for die, prefix in self._declarations(top, scope):
            if die.tag in _DEFINITIONS and _name(die):
                self.shared[die.offset] = "%s %s%s" % (_DEFINITIONS[die.tag], prefix, _name(die))
            elif die.tag == "DW_TAG_typedef":
                unnamed = self._unnamed(die)
                if unnamed is not None:
                    self.shared[die.offset] = "typedef %s%s" % (prefix, _name(die))
                    self.known_by_typedef.add(unnamed.offset)

    def _unnamed(self, typedef: Any) -> Any:
        """The definition without a name that a typedef names, or names a pointer to or an array of; None for others."""
        die = typedef
        while "DW_AT_type" in die.attributes and (die is typedef or die.tag in (*_POINTERS, *_QUALIFIERS, _ARRAY)):
            die = die.get_DIE_from_attribute("DW_AT_type")
        return die if die.tag in _DEFINITIONS and not _name(die) else None

    def _read(self, die: Any, scope: str) -> None:
        if die.tag in _DEFINITIONS:
            layout = self._layout(die)
            if _name(die):
                self._define(self.shared[die.offset], die)
            elif layout.is_enumeration() and len(layout.members) > 1 and die.offset not in self.known_by_typedef:
                # A single one is a constant; several tell cases apart.
                for member in layout.members:
                    key = "%s %s%s" % (_ENUMERATOR, scope, member[0])
                    self.info.types.setdefault(key, set()).add(Layout(layout.size, (member,)))
        elif die.tag == "DW_TAG_typedef" and die.offset in self.shared:
            self._define(self.shared[die.offset], self._unnamed(die))
        elif die.tag == "DW_TAG_subprogram" and "DW_AT_declaration" not in die.attributes:
            name = _linkage_name(die)
            if name:
                self.info.prototypes[name] = self._prototype(die)
                self._locals(name, die)
                closures = list(self._closures(die))
                for number, closure in enumerate(closures, 1):
                    # Another number of them is another list: which is which is not known then.
                    self._define("closure %d of %d in %s" % (number, len(closures), name), closure)
        elif die.tag == "DW_TAG_variable":
            for target in self._atoms(die):
                self.info.variables[target] = self._written_out(die)

    def _define(self, name: str, die: Any) -> None:
        if "DW_AT_declaration" not in die.attributes:
            self.info.types.setdefault(name, set()).add(self._layout(die))

    def _layout(self, die: Any) -> Layout:
        members = []
        if "DW_AT_alignment" in die.attributes:
            members.append(("(alignment)", str(_value(die, "DW_AT_alignment")), ""))
        for member in die.iter_children():
            if member.tag == "DW_TAG_enumerator":
                members.append((_name(member), str(_value(member, "DW_AT_const_value")), _ENUMERATOR))
            elif member.tag in ("DW_TAG_member", "DW_TAG_inheritance") and "DW_AT_external" not in member.attributes:
                place = "%s/%s:%s" % (
                    _value(member, "DW_AT_data_member_location"),
                    # Up to DWARF 3, bits were counted otherwise.
                    _value(member, "DW_AT_data_bit_offset", _value(member, "DW_AT_bit_offset")),
                    _value(member, "DW_AT_bit_size"),
                )
                members.append((_name(member), place, self._type_of(member)))
            elif member.tag == "DW_TAG_subprogram" and "DW_AT_virtuality" in member.attributes:
                slot = "slot %s" % _value(member, "DW_AT_vtable_elem_location")
                members.append(("virtual " + _name(member), slot, self._type_of(member)))
        return Layout(_value(die, "DW_AT_byte_size"), tuple(members))

    def _prototype(self, die: Any) -> Prototype:
        parameters = []
        for child in die.iter_children():
            if child.tag == "DW_TAG_formal_parameter":
                parameters.append(self._type_of(child))
            elif child.tag == "DW_TAG_unspecified_parameters":
                parameters.append("...")
        return Prototype(self._type_of(die), tuple(parameters))

    def _locals(self, function: str, die: Any) -> None:
        for child in die.iter_children():
            if child.tag == "DW_TAG_variable":
                for target in self._atoms(child):
                    number = 0
                    while (function, _name(child), number) in self.info.static_locals:
                        number += 1
                    self.info.static_locals[function, _name(child), number] = target
                    self.info.variables[target] = self._written_out(child)
            elif child.tag in _BLOCKS:
                self._locals(function, child)

    def _closures(self, die: Any) -> Iterator[Any]:
        """The types of the lambda expressions of a function, in order."""
        for child in die.iter_children():
            if child.tag in _BLOCKS:
                yield from self._closures(child)
            elif child.tag in _DEFINITIONS and _name(child)[:7] in ("", "<lambda") and _is_called(child):
                yield child

    def _atoms(self, variable: Any) -> list[str]:
        """The names of the atoms of a variable with a fixed place: Clang may give each member its own. DWARF 5, 2.6."""
        location = variable.attributes.get("DW_AT_location")
        if location is None or location.form not in ("DW_FORM_exprloc", "DW_FORM_block1"):
            return []
        found, at = [], 0
        while at < len(location.value):
            if location.value[at] == _DW_OP_ADDR:
                # A length byte stands before the expression.
                found.append(self.targets.get(location.offset + 2 + at, ""))
                at += 9
            elif location.value[at] in (_DW_OP_ADDRX, _DW_OP_PIECE):
                size, number = _leb128(location.value[at + 1 :])
                if location.value[at] == _DW_OP_ADDRX:
                    found.append(self.address_table.get(self.address_base + 8 * number, ""))
                at += 1 + size
            else:
                break
        return [name for name in found if name]

    def _written_out(self, variable: Any) -> str:
        """The type of a variable, with the members of each type that only the function around it knows."""
        found: dict[str, str] = {}
        waiting, seen = [variable], set()
        while waiting:
            die = waiting.pop()
            if die.offset in self.shared or die.offset in seen:
                continue
            seen.add(die.offset)
            if die.tag in _DEFINITIONS:
                found[self._describe(die)] = str(self._layout(die))
                waiting += [child for child in die.iter_children() if child.tag == "DW_TAG_member"]
            if "DW_AT_type" in die.attributes and die.tag != "DW_TAG_subroutine_type":
                waiting.append(die.get_DIE_from_attribute("DW_AT_type"))
        return "; ".join([self._type_of(variable), *("%s = %s" % row for row in sorted(found.items()))])

    def _type_of(self, die: Any) -> str:
        if "DW_AT_type" not in die.attributes:
            for name in _ELSEWHERE:
                if name in die.attributes:
                    return self._type_of(die.get_DIE_from_attribute(name))
            return "void"
        return self._describe(die.get_DIE_from_attribute("DW_AT_type"))

    def _describe(self, die: Any) -> str:
        known = self.words.get(die.offset)
        if known is None:
            self.words[die.offset] = "recursive"
            known = self.words[die.offset] = self._describe_new(die)
        return known

    def _describe_new(self, die: Any) -> str:
        if die.tag in _QUALIFIERS:
            return self._type_of(die)
        if die.offset in self.shared:
            return self.shared[die.offset]
        if die.tag == "DW_TAG_typedef":
            return self._type_of(die)
        if die.tag in _DEFINITIONS:
            return "%s %s" % (_DEFINITIONS[die.tag], _name(die) or self._layout(die))
        if die.tag in _POINTERS:
            return self._type_of(die) + " *"
        if die.tag == _ARRAY:
            bounds = [
                "[%s]" % (_value(child, "DW_AT_upper_bound", _value(child, "DW_AT_count", "")))
                for child in die.iter_children()
                if child.tag == "DW_TAG_subrange_type"
            ]
            return self._type_of(die) + " " + "".join(bounds)
        if die.tag == "DW_TAG_subroutine_type":
            prototype = self._prototype(die)
            return "%s (%s)" % (prototype.returns, ", ".join(prototype.parameters))
        return "%s %s" % (_name(die) or die.tag, _value(die, "DW_AT_byte_size", ""))


def _name(die: Any) -> str:
    value = die.attributes.get("DW_AT_name")
    return value.value.decode("utf-8", "replace") if value is not None else ""


def _leb128(raw: list[int]) -> tuple[int, int]:
    """How many bytes a number takes, and the number (DWARF 5, 7.6)."""
    number = 0
    for place, byte in enumerate(raw):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return place + 1, number
    return len(raw), number


def _is_called(definition: Any) -> bool:
    """True for a class whose objects are called as functions are."""
    return any(_name(member) == "operator()" for member in definition.iter_children())


def _linkage_name(die: Any) -> str:
    """The name of a function's symbol; of a definition outside of its class, the declaration says it."""
    for name in ("DW_AT_linkage_name", "DW_AT_MIPS_linkage_name"):
        if name in die.attributes:
            return str(die.attributes[name].value.decode("utf-8", "replace"))
    for name in _ELSEWHERE:
        if name in die.attributes:
            return _linkage_name(die.get_DIE_from_attribute(name))
    return _name(die)


def _value(die: Any, attribute: str, default: Any = 0) -> Any:
    found = die.attributes.get(attribute)
    return found.value if found is not None else default
