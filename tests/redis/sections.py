# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What two builds of one program have in common, section by section."""

from __future__ import annotations

import hashlib

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

# The linker's digest of all it wrote, debug information included: another directory, another build-id.
BUILD_ID = ".note.gnu.build-id"
# Address, size and SHA-256 of a section.
Section = tuple[int, int, str]


def loaded_sections(path: str) -> dict[str, Section]:
    """The sections of an ELF file that a process maps (SHF_ALLOC), by name; .bss has no bytes to compare."""
    found = {}
    with open(path, "rb") as stream:
        for section in ELFFile(stream).iter_sections():
            if section["sh_flags"] & SH_FLAGS.SHF_ALLOC:
                content = b"" if section["sh_type"] == "SHT_NOBITS" else section.data()
                digest = hashlib.sha256(content).hexdigest()
                found[section.name] = (section["sh_addr"], section["sh_size"], digest)
    return found


def differing(path: str, other: str) -> list[str]:
    """The names of the loaded sections, the build-id aside, that are not the same in both files."""
    first, second = loaded_sections(path), loaded_sections(other)
    names = (first.keys() | second.keys()) - {BUILD_ID}
    return sorted(name for name in names if first.get(name) != second.get(name))
