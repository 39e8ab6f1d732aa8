# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines that only moved keep their numbers: #line directives behind every place where lines were added or taken away.

assert() and logging macros compile __LINE__ into the code; without this, every function below a fix would be a changed
one. A directive changes the number only: the file name stays as the compiler has it. (C17, 6.10.4)
"""

from __future__ import annotations

import re
import subprocess
import tempfile

from .._errors import LivepatchError

_C_FAMILY = re.compile(r"\.(c|h|cc|hh|cxx|hxx|cpp|hpp|inl|inc|C|H)$")
_HUNK = re.compile(rb"(\d+)(?:,(\d+))?([acd])(\d+)(?:,(\d+))?\n?$")


def keep_line_numbers(name: str, old: bytes, new: bytes) -> bytes:
    """The new content of a C source or header, with directives that give unchanged lines their old numbers."""
    if not _C_FAMILY.search(name) or old == new:
        return new
    lines = new.splitlines(True)
    safe = _places(lines)
    directives: dict[int, int] = {}
    for _first, old_next, new_next, limit in _shifts(old, new):
        # Lines new_next .. limit (counted from 0) of the new text are lines old_next .. of the old one.
        for at in range(new_next, limit):
            if safe[at]:
                directives[at] = old_next + (at - new_next) + 1
                break
    out: list[bytes] = []
    for at, line in enumerate(lines):
        if at in directives:
            out.append(b"#line %d\n" % directives[at])
        out.append(line)
    return b"".join(out)


def _shifts(old: bytes, new: bytes) -> list[tuple[int, int, int, int]]:
    """(old start, old next, new next, new limit) behind each hunk that changes the number of lines; lines from 0."""
    hunks = []
    for row in _diff(old, new).splitlines():
        match = _HUNK.match(row)
        if match:
            a1, a2, kind, b1, b2 = match.groups()
            first_old, last_old = int(a1), int(a2 or a1)
            first_new, last_new = int(b1), int(b2 or b1)
            # In an 'a' hunk the old side names the line before, in a 'd' hunk the new side does.
            old_next = last_old
            new_next = last_new
            count_old = 0 if kind == b"a" else last_old - first_old + 1
            count_new = 0 if kind == b"d" else last_new - first_new + 1
            hunks.append((first_old, old_next, new_next, count_old, count_new, first_new if kind == b"d" else first_new - 1))
    found = []
    total = len(new.splitlines())
    for number, (first_old, old_next, new_next, count_old, count_new, _start) in enumerate(hunks):
        limit = hunks[number + 1][5] if number + 1 < len(hunks) else total
        if count_old != count_new:
            found.append((first_old, old_next, new_next, limit))
    return found


def _diff(old: bytes, new: bytes) -> bytes:
    with tempfile.NamedTemporaryFile() as one, tempfile.NamedTemporaryFile() as two:
        one.write(old)
        one.flush()
        two.write(new)
        two.flush()
        try:
            done = subprocess.run(["diff", "--text", one.name, two.name], stdout=subprocess.PIPE, check=False)
        except FileNotFoundError:
            raise LivepatchError("dependency_missing", "'diff' is not installed", "Install diffutils on the build host.") from None
    return done.stdout


_TOKEN = re.compile(rb'/\*|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|\n')


def _places(lines: list[bytes]) -> list[bool]:
    """For each line, whether a directive may stand before it: not in a comment, nor in a continued line or statement."""
    safe = []
    in_comment = False
    before = b";"
    for line in lines:
        safe.append(not in_comment and before[-1:] in b";{}:#" and before != b"")
        rest = line
        code = b""
        while rest:
            if in_comment:
                end = rest.find(b"*/")
                if end < 0:
                    break
                rest, in_comment = rest[end + 2 :], False
                continue
            match = _TOKEN.search(rest)
            if not match:
                code += rest
                break
            code += rest[: match.start()]
            if match.group() == b"/*":
                in_comment = True
            elif match.group()[:1] in b"\"'":
                code += b'""'
            rest = rest[match.end() :]
        stripped = code.strip()
        if stripped.endswith(b"\\"):
            before = b","
        elif stripped.startswith(b"#"):
            before = b"#"
        elif stripped:
            before = stripped if before != b"," or not stripped else stripped
    return safe
