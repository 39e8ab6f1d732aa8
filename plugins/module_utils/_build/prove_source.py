# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The proof that this source is what runs: rebuilt code and data compared with the deployed object's.

The build-id may differ (it covers debug information and paths); what the processor sees may not.
"""

from __future__ import annotations

from dataclasses import dataclass

from .._elf.build_id import file_build_id
from .._elf.object_file import SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS, SHT_PROGBITS, STT_FUNC, ObjectFile
from .request import Refusal, refuse

_NOT_COMPARED = frozenset((".interp", ".gnu_debuglink", ".gnu_debugaltlink"))


@dataclass(frozen=True)
class DeployedObject:
    """The object that the patch is for. `path` is where a copy of it lies on the build host."""

    path: str
    file: ObjectFile
    build_id: str


def deployed_object(path: str) -> DeployedObject:
    """The deployed object at `path`.

    Raises BuildRefused no_build_id, NotElf and OSError.
    """
    with open(path, "rb") as stream:
        file = ObjectFile(stream.read(), path)
    build_id = file_build_id(path)
    if not build_id:
        raise refuse("no_build_id", "%s has no build-id" % path)
    return DeployedObject(path, file, build_id)


def loaded_sections(linked: ObjectFile) -> dict[str, tuple[int, int, int]]:
    """Address, size and kind of the sections that hold code and data, by name."""
    return {
        section.name: (section.address, section.size, section.kind)
        for section in linked.sections
        if section.flags & SHF_ALLOC
        and section.kind in (SHT_PROGBITS, SHT_NOBITS)
        and section.name not in _NOT_COMPARED
    }


def differing_sections(artifact: ObjectFile, deployed: ObjectFile) -> list[str]:
    """The names of the sections that differ in address, size or content; none when the source is proven."""
    ours, theirs = loaded_sections(artifact), loaded_sections(deployed)
    differing = sorted(set(ours) ^ set(theirs))
    for name in sorted(set(ours) & set(theirs)):
        one, two = artifact.section(name), deployed.section(name)
        if ours[name] != theirs[name] or one is None or two is None or artifact.content(one) != deployed.content(two):
            differing.append(name)
    return differing


def mismatch(artifact: ObjectFile, deployed: DeployedObject, differing: list[str]) -> Refusal:
    """The refusal for a rebuilt object that is not the deployed one: where, how much, and maybe the compiler."""
    ours, theirs = _compilers(artifact), _compilers(deployed.file)
    if ours and theirs and ours != theirs:
        return Refusal(
            "compiler_mismatch",
            "",
            deployed.path,
            "%s was compiled by %s, the rebuilt object by %s" % (deployed.path, ", ".join(theirs), ", ".join(ours)),
        )
    functions = [s for s in artifact.symbols() if s.kind == STT_FUNC and s.size and s.is_defined()]
    wrong = sorted(
        {
            (symbol.value, symbol.name)
            for symbol in functions
            if artifact.read(symbol.value, symbol.size) != deployed.file.read(symbol.value, symbol.size)
        }
    )
    where = "sections that differ: %s" % ", ".join(differing)
    first = wrong[0][1] if wrong else ""
    if wrong:
        where += "; %d of %d functions differ, the first is %s at 0x%x" % (
            len(wrong),
            len(functions),
            first,
            wrong[0][0],
        )
    return Refusal(
        "source_mismatch",
        first,
        deployed.path,
        "the rebuilt object is not the deployed one (%s): %s" % (deployed.path, where),
    )


def _compilers(linked: ObjectFile) -> list[str]:
    section = linked.section(".comment")
    if section is None or section.flags & SHF_EXECINSTR:
        return []
    return sorted({part.decode("utf-8", "replace") for part in linked.content(section).split(b"\0") if part})
