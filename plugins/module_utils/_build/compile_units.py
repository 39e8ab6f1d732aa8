# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiling single units again, as the build did or with a section for each function and variable; never twice."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass

from .._elf.object_file import SHF_ALLOC, SHT_NOBITS, SHT_PROGBITS, ObjectFile, read_object_file
from .._errors import LivepatchError
from .link_inputs import Unit
from .request import refuse
from .run_compiler import in_parallel, run_compiler
from .watch_build import Progress

# Debug information as it is read here, whatever else the build asks for.
IN_SECTIONS = ("-ffunction-sections", "-fdata-sections", "-g", "-gz=none", "-fno-debug-types-section")
AS_BUILT: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compilation:
    """One unit to compile into a folder with these options besides its own: AS_BUILT, or IN_SECTIONS and more."""

    unit: Unit
    folder: str
    options: tuple[str, ...]

    def path(self) -> str:
        """Where the object is kept, told from others by all that the command says."""
        command = self.unit.command
        words = [*self.options, "", self.unit.word, command.folder, command.compiler, *command.arguments]
        words += ["%s=%s" % setting for setting in command.settings]
        key = hashlib.sha256("\0".join(words).encode("utf-8", "surrogateescape")).hexdigest()[:20]
        return os.path.join(self.folder, "%s-%s.o" % (os.path.basename(self.unit.source), key))


def compile_all(wanted: list[Compilation], progress: Progress | None = None) -> list[str]:
    """Compile what is not there yet, as much at once as the machine has processors; the paths of the objects, in order.

    Raises LivepatchError build_failed with the compiler's messages.
    """
    for folder in {one.folder for one in wanted}:
        os.makedirs(folder, exist_ok=True)
    missing = {one.path(): one for one in wanted}
    missing = {path: one for path, one in missing.items() if not os.path.exists(path)}
    in_parallel(lambda row: _compile(row[1], row[0]), missing.items(), "compiled", progress)
    return [one.path() for one in wanted]


def _compile(one: Compilation, path: str) -> None:
    """Under a name of its own first: a compiler that outlives a killed builder spoils nothing."""
    handle, fresh = tempfile.mkstemp(prefix="unfinished-", suffix=".o", dir=one.folder)
    try:
        status, output = run_compiler(one.unit, [*one.options, "-c", "-o", fresh], True)
        if status:
            raise LivepatchError(
                "build_failed",
                "%s does not compile:\n%s" % (one.unit.word, output.decode("utf-8", "replace")[-4000:]),
                "Make the change compile with the project's own build command.",
            )
        # The assembler may have made the file anew.
        os.close(handle)
        handle = os.open(fresh, os.O_RDONLY)
        os.fsync(handle)
        os.rename(fresh, path)
    finally:
        os.close(handle)
        if os.path.exists(fresh):
            os.unlink(fresh)


def linked_object(unit: Unit, folder: str) -> ObjectFile:
    """The unit's object as it was linked; compiled again where the compiler did not keep it."""
    if unit.content is not None:
        return ObjectFile(unit.content, unit.object_name)
    return read_object_file(compile_all([Compilation(unit, folder, AS_BUILT)])[0])


def require_same_object(unit: Unit, linked: ObjectFile, path: str) -> None:
    """Compare the object at `path`, compiled AS_BUILT, with what was linked: what the build had and we have not shows.

    Raises BuildRefused source_mismatch when code or data came out differently.
    """
    if _loaded(linked) != _loaded(read_object_file(path)):
        raise refuse(
            "source_mismatch",
            "%s, compiled once more by the same command, is not what the build made of it" % unit.word,
            file=unit.word,
            remedy="Keep fixed what the build changes afterwards (generated files, objcopy, __TIME__).",
        )


def _loaded(unit: ObjectFile) -> list[tuple[str, int, bytes]]:
    """Name, size and content of the sections with code and data."""
    return [
        (section.name, section.size, unit.content(section))
        for section in unit.sections
        if section.flags & SHF_ALLOC and section.kind in (SHT_PROGBITS, SHT_NOBITS)
    ]


def same_code(one: ObjectFile, other: ObjectFile) -> bool:
    """True when two objects are equal but for their debug information; then they mean the same."""
    return _all_but_debug(one) == _all_but_debug(other)


def _all_but_debug(unit: ObjectFile) -> list[tuple[object, ...]]:
    return [
        (
            section[:4],
            section.size,
            section.link,
            section.info,
            section.align,
            section.entry_size,
            unit.content(section),
        )
        for section in unit.sections
        if not section.name.startswith((".debug_", ".rela.debug_"))
    ]
