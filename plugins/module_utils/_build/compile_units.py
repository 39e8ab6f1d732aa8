# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiling single units again, with a section for each function and variable, as the project's build compiled them."""

from __future__ import annotations

import hashlib
import os
import subprocess

from .._elf.object_file import SHF_ALLOC, SHT_NOBITS, SHT_PROGBITS, ObjectFile, read_object_file
from .._errors import LivepatchError
from .dependencies import in_parallel
from .link_inputs import Unit
from .request import refuse

# Debug information as it is read here, whatever else the build asks for.
_IN_SECTIONS = ["-ffunction-sections", "-fdata-sections", "-g", "-gz=none", "-fno-debug-types-section"]


def compile_in_sections(units: list[Unit], folder: str, options: tuple[str, ...] = ()) -> list[str]:
    """Compile units into `folder`, each function and variable in its own section; the paths of the objects, in order.

    `options` are further compiler options.
    What is there already is taken as it is. Raises LivepatchError build_failed with the compiler's messages.
    """
    return _compile(units, folder, [*_IN_SECTIONS, *options], "sections")


def linked_object(unit: Unit, folder: str) -> ObjectFile:
    """The unit's object as it was linked; compiled again where the compiler did not keep it."""
    if unit.content is not None:
        return ObjectFile(unit.content, unit.object_name)
    path = _compile([unit], folder, [], "plain")[0]
    return read_object_file(path)


def require_same_object(units: list[Unit], folder: str) -> None:
    """Compile units once more as the build did, and compare: what the build had and we have not would show.

    Raises BuildRefused source_mismatch for a unit whose code or data comes out differently.
    """
    for unit, path in zip(units, _compile(units, folder, [], "plain")):
        linked, again = linked_object(unit, folder), read_object_file(path)
        if _loaded(linked) != _loaded(again):
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


def _compile(units: list[Unit], folder: str, options: list[str], what: str) -> list[str]:
    os.makedirs(folder, exist_ok=True)

    def run(unit: Unit) -> str:
        words = [what, *options, unit.word, unit.command.folder, unit.command.compiler, *unit.command.arguments]
        key = hashlib.sha256("\0".join(words).encode("utf-8", "surrogateescape")).hexdigest()[:20]
        path = os.path.join(folder, "%s-%s.o" % (os.path.basename(unit.source), key))
        if not os.path.exists(path):
            command = unit.command.for_source(unit.word, [*options, "-c", "-o", path + ".new"])
            done = subprocess.run(
                command,
                cwd=unit.command.folder,
                env=unit.command.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
            if done.returncode:
                raise LivepatchError(
                    "build_failed",
                    "%s does not compile:\n%s" % (unit.word, done.stdout.decode("utf-8", "replace")[-4000:]),
                    "Make the change compile with the project's own build command.",
                )
            os.replace(path + ".new", path)
        return path

    return in_parallel(run, units)
