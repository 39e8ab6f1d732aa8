# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writing a patch file: the content becomes assembler text, and the system's assembler writes the ELF object.

The text can be read and compared, the assembler knows every relocation of its architecture by name, and the same
content
gives the same bytes. Every symbol is global and hidden: the assembler then leaves relocations on the symbol itself.
"""

from __future__ import annotations

import os
import subprocess
import tempfile

from .._errors import LivepatchError
from .content import BSS, DATA, RODATA, TEXT, Patch, Section, Symbol
from .manifest import SECTION
from .reader import read_patch
from .relocation_names import RELOCATION_NAMES
from .seal import sealed

_FLAGS = {TEXT: '"ax",@progbits', RODATA: '"a",@progbits', DATA: '"aw",@progbits', BSS: '"aw",@nobits'}
_BYTES_A_LINE = 16


def assembler_text(patch: Patch) -> str:
    """The patch as text for GNU as.

    Raises LivepatchError construct_unsupported for a relocation type without a known name.
    """
    lines = ["# A livepatch file: its code as bytes, its manifest in section %s." % SECTION]
    for reference in patch.manifest.references:
        lines.append('.globl "%s"' % reference.symbol)
    names = RELOCATION_NAMES[patch.manifest.object.arch]
    for number, section in enumerate(patch.sections):
        lines.append(".section %s,%s" % (section.name, _FLAGS[section.kind]))
        lines.append(".balign %d" % section.align)
        labels = [symbol for symbol in patch.symbols if symbol.section == number]
        lines += _content(section, labels)
        for relocation in patch.relocations:
            if relocation.section == number:
                if relocation.kind not in names:
                    raise LivepatchError(
                        "construct_unsupported",
                        "a reference to %s has relocation type %d, which is not supported"
                        % (relocation.symbol, relocation.kind),
                    )
                lines.append(
                    '.reloc %d, %s, "%s"%+d'
                    % (relocation.offset, names[relocation.kind], relocation.symbol, relocation.addend)
                )
    lines.append('.section %s,"",@progbits' % SECTION)
    raw = patch.manifest.to_json().decode("ascii")
    for row in raw.splitlines(True):
        lines.append('.ascii "%s"' % row.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
    lines.append('.section .note.GNU-stack,"",@progbits')
    return "\n".join(lines) + "\n"


def _content(section: Section, labels: list[Symbol]) -> list[str]:
    lines = []
    at = 0
    for stop, symbol in [(s.offset, s) for s in sorted(labels, key=lambda s: (s.offset, s.name))] + [
        (section.size, None)
    ]:
        if section.kind == BSS:
            if stop > at:
                lines.append(".zero %d" % (stop - at))
        else:
            for start in range(at, stop, _BYTES_A_LINE):
                row = section.content[start : min(start + _BYTES_A_LINE, stop)]
                lines.append(".byte " + ",".join("0x%02x" % byte for byte in row))
        at = stop
        if symbol is not None:
            kind = "@function" if symbol.is_function else "@object"
            lines.append(
                f'.globl "{symbol.name}"\n.hidden "{symbol.name}"\n.type "{symbol.name}",{kind}\n'
                f'.size "{symbol.name}",{symbol.size}'
            )
            lines.append('"%s":' % symbol.name)
    return lines


def patch_bytes(patch: Patch) -> bytes:
    """The patch file for this content, assembled and read back.

    Raises LivepatchError dependency_missing (no assembler), construct_unsupported, or internal when what was read back
    is not what was to be written.
    """
    text = assembler_text(patch)
    with tempfile.TemporaryDirectory(prefix="livepatch-") as folder:
        # Relative names, so that no path finds its way into the file.
        with open(os.path.join(folder, "patch.s"), "w", encoding="ascii") as stream:
            stream.write(text)
        command = ["as", "--64"] if patch.manifest.object.arch == "x86_64" else ["as"]
        try:
            done = subprocess.run(
                [*command, "-o", "patch.o", "patch.s"],
                cwd=folder,
                env={**os.environ, "LC_ALL": "C"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
        except FileNotFoundError:
            raise LivepatchError(
                "dependency_missing",
                "the assembler 'as' is not installed",
                "Install binutils on the build host.",
            ) from None
        if done.returncode:
            raise LivepatchError(
                "internal", "the assembler refused the patch: %s" % done.stdout.decode("utf-8", "replace")
            )
        with open(os.path.join(folder, "patch.o"), "rb") as stream:
            raw = sealed(stream.read())
    _compare(patch, read_patch(raw))
    return raw


def _compare(written: Patch, read: Patch) -> None:
    """Raises LivepatchError internal unless both have the same content."""
    if written.manifest != read.manifest:
        raise LivepatchError("internal", "the manifest of the patch file reads back differently")
    for part, ours, theirs in zip(("sections", "symbols", "relocations"), _ordered(written), _ordered(read)):
        if ours != theirs:
            odd = sorted(set(ours) ^ set(theirs))[:4]
            raise LivepatchError(
                "internal", "the %s of the patch file read back differently: %s" % (part, ", ".join(odd))
            )


def _ordered(patch: Patch) -> tuple[list[str], list[str], list[str]]:
    """Sections, symbols and relocations without regard to the order of the file's sections, which the assembler
    chooses.
    """
    names = [section.name for section in patch.sections]
    sections = sorted(repr(section) for section in patch.sections)
    # The reader also lists each section's own symbol.
    own = [symbol for symbol in patch.symbols if symbol.name not in names]
    symbols = sorted(repr((names[s.section], s.offset, s.name, s.size, s.is_function)) for s in own)
    relocations = sorted(repr((names[r.section], r.offset, r.kind, r.symbol, r.addend)) for r in patch.relocations)
    return sections, symbols, relocations
