# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The manifest of a patch file, format 1: what the patch is, what it is bound to, and where every reference goes.

Stored as canonical JSON (sorted keys, two-space indent) in the section `.livepatch` of the file. Offsets are link-time
virtual addresses of the deployed object: address in a process = load bias + offset. docs/patch-format.md is its manual.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from .._errors import LivepatchError
from .strict_json import strict_json

FORMAT = 1
SECTION = ".livepatch"
ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
OBJECT, EXTERNAL, WEAK = "object", "external", "weak"
CONSISTENCIES = ("entry", "atomic", "quiescent")
ALL_ARGUMENTS = 6
_TOP = 1 << 47
# What no patch of the builder comes near, bytes: of JSON, and of one function or value.
MOST_MANIFEST, _MOST_ONE = 4 << 20, 16 << 20
_MOST_BUILD_ID = 64
#: The most functions, cold parts and values of a patch together; of references there may be ten times as many.
MOST_PLACES = 2048
_HEX = re.compile(r"[0-9a-f]*\Z")
# Half characters, and what would move a terminal's cursor.
_NO_TEXT = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class BoundObject:
    """The one object a patch fits. `build_id` is lower-case hex, `arch` as in `uname -m`, `name` only for people."""

    name: str
    build_id: str
    arch: str


@dataclass(frozen=True)
class ReplacedFunction:
    """One function of the object whose entry is to branch to the patch.

    `offset`, `size`: where it is and how many bytes it has; `sha256`: of those bytes; `entry`: the bytes there as hex
    (at most 16, also those behind a shorter function); `overwritable`: how many bytes from the entry on may be
    overwritten as a whole because nothing branches into them (padding behind a short function counts); `symbol`: its
    new code in the patch, `new_size` bytes long; `arguments`: in how many integer registers arguments come in, at most
    (all six of x86-64 where that is not known: what is written to the others before a branch does not matter).
    """

    name: str
    offset: int
    size: int
    sha256: str
    entry: str
    overwritable: int
    symbol: str
    new_size: int
    arguments: int = ALL_ARGUMENTS


@dataclass(frozen=True)
class ColdCode:
    """Code of a replaced function that the compiler put elsewhere (`NAME.cold`): a thread there is inside it, too."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class ChangedValue:
    """One value of the object to be overwritten on activation: `old` and `new` are hex, of the same length."""

    name: str
    offset: int
    old: str
    new: str


@dataclass(frozen=True)
class Reference:
    """Where an undefined symbol of the patch's code leads.

    kind "object": the object's own function or variable `name` at `offset`.
    kind "external": what the process itself uses for `name` (and `version`, if not empty): the content of the object's
    own slot at `slot` once the dynamic linker filled it, else a look-up in the scope of the object.
    kind "weak": the same, but 0 when nothing in that scope defines it. (gABI, chapter 4, "Symbol Binding")
    """

    symbol: str
    kind: str
    name: str
    offset: int = 0
    slot: int = 0
    version: str = ""

    @property
    def is_outside(self) -> bool:
        """True for what the process is asked for by name, and may find in another object."""
        return self.kind in (EXTERNAL, WEAK)


@dataclass(frozen=True)
class Manifest:
    """Everything about a patch but its bytes."""

    id: str
    version: str
    object: BoundObject
    functions: tuple[ReplacedFunction, ...]
    cold: tuple[ColdCode, ...] = ()
    data: tuple[ChangedValue, ...] = ()
    references: tuple[Reference, ...] = ()
    new_symbols: tuple[str, ...] = ()
    description: str = ""
    cves: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    consistency: str = "entry"
    built: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """The canonical bytes of the manifest: the same manifest always gives the same bytes."""
        plain: dict[str, Any] = {"format": FORMAT}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, tuple):
                value = [vars(item) if hasattr(item, "__dataclass_fields__") else item for item in value]
            elif isinstance(value, BoundObject):
                value = vars(value)
            plain[name] = value
        return (json.dumps(plain, sort_keys=True, indent=2, ensure_ascii=True) + "\n").encode("ascii")


def parse_manifest(raw: bytes) -> Manifest:
    """The manifest in these bytes, checked field by field.

    Raises LivepatchError patch_unsupported (another format) or patch_corrupt (anything else that is not as it must be).
    """
    if len(raw) > MOST_MANIFEST:
        raise _corrupt("its manifest is larger than %d MiB" % (MOST_MANIFEST >> 20))
    try:
        plain = strict_json(raw)
    except ValueError as error:
        raise _corrupt("its manifest is not JSON: %s" % error) from None
    if not isinstance(plain, dict):
        raise _corrupt("its manifest is not a JSON object")
    if plain.get("format") != FORMAT:
        raise LivepatchError(
            "patch_unsupported",
            "the patch file has format %s, this collection reads format %d" % (repr(plain.get("format"))[:40], FORMAT),
        )
    del plain["format"]
    for name, kind in (
        ("functions", ReplacedFunction),
        ("cold", ColdCode),
        ("data", ChangedValue),
        ("references", Reference),
    ):
        rows = plain.get(name)
        if not isinstance(rows, list):
            raise _corrupt("'%s' is missing or not a list" % name)
        plain[name] = tuple(_record(kind, row, name) for row in rows)
    for name in ("new_symbols", "cves", "requires", "replaces"):
        rows = plain.get(name)
        if not isinstance(rows, list) or not all(isinstance(row, str) and _is_text(row) for row in rows):
            raise _corrupt("'%s' is missing or not a list of strings" % name)
        plain[name] = tuple(rows)
    plain["object"] = _record(BoundObject, plain.get("object"), "object")
    built = plain.get("built")
    if not isinstance(built, dict) or not all(isinstance(value, str) and _is_text(value) for value in built.values()):
        raise _corrupt("'built' is missing or not a table of strings")
    manifest: Manifest = _record(Manifest, plain, "the manifest")
    _check(manifest)
    if manifest.to_json() != raw:
        # Two readers of other JSON, with a key twice for example, may see two things in it.
        raise _corrupt("its manifest is not in the one form that it may have")
    return manifest


def check_id(patch_id: str) -> str:
    """The same id. Raises LivepatchError not_loaded for what can be no patch's id."""
    if not ID_PATTERN.match(patch_id):
        raise LivepatchError(
            "not_loaded",
            "%r is no patch id" % patch_id,
            "Give the id the patch was built with ('name' of livepatch_build): letters, digits, '.', '_' and '-'.",
        )
    return patch_id


def _record(kind: Any, row: Any, where: str) -> Any:
    """A dataclass from a JSON object with exactly its fields, strings and integers checked for type."""
    fields = kind.__dataclass_fields__
    if not isinstance(row, dict) or set(row) != set(fields):
        raise _corrupt("%s does not have the fields %s" % (where, ", ".join(sorted(fields))))
    for name, value in row.items():
        declared = fields[name].type
        if declared == "str" and not (isinstance(value, str) and _is_text(value)):
            raise _corrupt("'%s' of %s is not a string" % (name, where))
        if declared == "int" and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _TOP):
            raise _corrupt("'%s' of %s is not an address or size" % (name, where))
    return kind(**row)


def _is_text(value: str) -> bool:
    """True for what can be a name in a file or a process, and be shown."""
    return not _NO_TEXT.search(value)


def _is_hex(value: str, most: int) -> bool:
    """True for 1 to `most` bytes in hex."""
    return 2 <= len(value) <= 2 * most and not len(value) % 2 and bool(_HEX.match(value))


def _check(manifest: Manifest) -> None:
    if not all(ID_PATTERN.match(name) for name in (manifest.id,) + manifest.requires + manifest.replaces):
        raise _corrupt("a patch id is not of the form [A-Za-z0-9][A-Za-z0-9._-]*")
    if manifest.consistency not in CONSISTENCIES:
        raise _corrupt("consistency %r is none of %s" % (manifest.consistency, ", ".join(CONSISTENCIES)))
    if not _is_hex(manifest.object.build_id, _MOST_BUILD_ID):
        raise _corrupt("the build-id is not hex")
    if not manifest.functions and not manifest.data:
        raise _corrupt("it replaces nothing")
    places = len(manifest.functions) + len(manifest.cold) + len(manifest.data)
    if places > MOST_PLACES or len(manifest.references) > 10 * MOST_PLACES:
        raise _corrupt("it names %d places and %d references" % (places, len(manifest.references)))
    taken: list[tuple[int, int, str]] = []
    for function in manifest.functions:
        entry = function.entry
        if not _is_hex(entry, 16):
            raise _corrupt("the entry bytes of %s are not hex of 1 to 16 bytes" % function.name)
        if len(function.sha256) != 64 or not _is_hex(function.sha256, 32) or not 0 < function.size <= _MOST_ONE:
            raise _corrupt("the digest or size of %s is not one" % function.name)
        if function.arguments > ALL_ARGUMENTS:
            raise _corrupt("the number of arguments of %s is not one" % function.name)
        taken.append((function.offset, function.offset + function.size, function.name))
    for value in manifest.data:
        if not _is_hex(value.old, _MOST_ONE) or not _is_hex(value.new, _MOST_ONE) or len(value.old) != len(value.new):
            raise _corrupt("the old and new bytes of %s are not hex of one length" % value.name)
        taken.append((value.offset, value.offset + len(value.old) // 2, value.name))
    for cold in manifest.cold:
        if not 0 < cold.size <= _MOST_ONE:
            raise _corrupt("the size of %s is not one" % cold.name)
    taken.sort()
    for one, two in zip(taken, taken[1:]):
        if one[1] > two[0]:
            raise _corrupt("%s and %s overlap" % (one[2], two[2]))
    if any(reference.kind not in (OBJECT, EXTERNAL, WEAK) for reference in manifest.references):
        raise _corrupt("a reference is neither to the object nor external nor weak")
    symbols = [reference.symbol for reference in manifest.references]
    if len(set(symbols)) != len(symbols):
        raise _corrupt("a symbol has two references")


def _corrupt(why: str) -> LivepatchError:
    return LivepatchError("patch_corrupt", "the patch file is damaged or no patch file: %s" % why)
