# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What objdump says of machine code: where instructions end, and where they branch to."""

from __future__ import annotations

import os
import re
import subprocess

from .._elf.object_file import SHF_ALLOC, SHF_EXECINSTR, ObjectFile
from .._errors import LivepatchError

_LINE = re.compile(r"\s*([0-9a-f]+):\t((?:[0-9a-f]{2} )+)\s*(?:\t(.*))?$")
_BRANCH = re.compile(r"(?:\w+ )*?(?:j[a-z]+|call|callq|loop[a-z]*|xbegin)(?:,p[nt])?\s+\*?(?:0x)?([0-9a-f]+)(?:\s|$)")
_PADDING = re.compile(r"(?:(?:data16|cs|rex\S*) )*(nop[wl]?\b|int3|xchg\s+%ax,%ax|lea\s+0x0\(%rsi)")


def _objdump(arguments: list[str]) -> str:
    try:
        done = subprocess.run(
            ["objdump", *arguments],
            capture_output=True,
            check=False,
            env={"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)},
        )
    except FileNotFoundError:
        raise LivepatchError(
            "dependency_missing", "'objdump' is not installed", "Install binutils on the build host."
        ) from None
    if done.returncode:
        raise LivepatchError("internal", "objdump failed: %s" % done.stderr.decode("utf-8", "replace"))
    return done.stdout.decode("utf-8", "replace")


def instruction_ends(path: str, unit: ObjectFile) -> dict[int, list[int]]:
    """For each code section (by number) of the object at `path`, the offsets at which its instructions end."""
    sections = [s for s in unit.sections if s.flags & SHF_ALLOC and s.flags & SHF_EXECINSTR and s.size]
    found: dict[int, list[int]] = {}
    current: list[int] = []
    place = -1
    for line in _objdump(["-d", "-w", "-z", path]).splitlines():
        if line.startswith("Disassembly of section "):
            place += 1
            current = found.setdefault(sections[place].number, []) if place < len(sections) else []
            continue
        match = _LINE.match(line)
        if match:
            current.append(int(match.group(1), 16) + len(match.group(2)) // 3)
    return found


def instructions(path: str, start: int, end: int) -> list[tuple[int, int, str]]:
    """(address, size, text) of each instruction of [start, end), link-time virtual addresses of a linked object."""
    text = _objdump(["-d", "-w", "-z", "--start-address=%d" % start, "--stop-address=%d" % end, path])
    rows = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if match:
            rows.append((int(match.group(1), 16), len(match.group(2)) // 3, (match.group(3) or "").strip()))
    return rows


def branch_target(text: str) -> int | None:
    """The address to which a direct branch goes, None for any other instruction."""
    match = _BRANCH.match(text)
    return int(match.group(1), 16) if match and "*" not in text else None


def is_padding(text: str) -> bool:
    """True for an instruction that only fills the space between functions."""
    return bool(_PADDING.match(text))


def plain_instructions(path: str, section: str) -> list[tuple[int, str]]:
    """(offset behind it, text) of each instruction of a code section of an unlinked object, without addresses.

    Two compilations of a function then differ in the lines that a person wants to see.
    """
    rows = []
    for line in _objdump(["-d", "-w", "-j", section, path]).splitlines():
        match = _LINE.match(line)
        if match:
            text = re.sub(r"\s+", " ", match.group(3) or "").strip()
            place, end = int(match.group(1), 16), int(match.group(1), 16) + len(match.group(2)) // 3
            target = branch_target(text)
            # Where a branch goes within the function moves with every instruction; a call's target is not known yet.
            way = "" if target is None or target == end else " up" if target <= place else " down"
            text = re.sub(r"^((?:\w+ )*[\w,]+) [0-9a-f]+ <[^>]*>$", r"\g<1>" + way, text)
            text = re.sub(r" # [0-9a-f]+ <[^>]*>", "", text)
            if not is_padding(text):
                rows.append((end, text))
    return rows
