# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines that only moved keep their numbers: #line directives behind every place where lines were added or taken away.

Macros for assertions and logging compile __LINE__ into the code; without this, every function below a fix would be a
changed one. A directive changes the number only: the file name stays as the compiler has it. (C17, 6.10.4)
"""

from __future__ import annotations

import re
import subprocess
import tempfile

from .._errors import LivepatchError

_C_FAMILY = re.compile(r"\.(c|h|cc|hh|cxx|hxx|cpp|hpp|inl|inc|C|H)$")
_GROUP_ENDS = re.compile(rb"\s*#\s*(else|elif|elifdef|elifndef|endif)\b")
_HUNK = re.compile(rb"(\d+)(?:,(\d+))?([acd])(\d+)(?:,(\d+))?\n?$")


def keep_line_numbers(name: str, old: bytes, new: bytes) -> bytes:
    """The new content of a C source or header, with directives that give unchanged lines their old numbers."""
    if not _C_FAMILY.search(name) or old == new:
        return new
    lines = new.splitlines(True)
    safe = _places(lines)
    directives: dict[int, int] = {}
    for old_next, new_next, limit in _unchanged_behind_shifts(old, new):
        # Lines new_next to limit of the new text are the lines from old_next on of the old one, counted from 0.
        pending = True
        for at in range(new_next, limit):
            # What stands in a group that is not compiled is not read: say it again behind each conditional.
            pending = pending or (at > new_next and bool(_GROUP_ENDS.match(lines[at - 1])))
            if pending and safe[at]:
                directives[at] = old_next + (at - new_next) + 1
                pending = False
    out: list[bytes] = []
    for at, line in enumerate(lines):
        if at in directives:
            out.append(b"#line %d\n" % directives[at])
        out.append(line)
    return b"".join(out)


def _unchanged_behind_shifts(old: bytes, new: bytes) -> list[tuple[int, int, int]]:
    """(old start, new start, new end) of each run of unchanged lines behind the first change of their number."""
    found = []
    shifted = False
    hunks = [match.groups() for match in map(_HUNK.match, _diff(old, new).splitlines()) if match]
    for number, (a1, a2, kind, b1, b2) in enumerate(hunks):
        # 'a' names the old line before what is added, 'd' the new line before what was taken away.
        old_next, new_next = int(a2 or a1), int(b2 or b1)
        removed = 0 if kind == b"a" else old_next - int(a1) + 1
        added = 0 if kind == b"d" else new_next - int(b1) + 1
        shifted = shifted or removed != added
        if not shifted:
            continue
        limit = len(new.splitlines())
        if number + 1 < len(hunks):
            next_kind, next_b1 = hunks[number + 1][2:4]
            limit = int(next_b1) - (0 if next_kind == b"d" else 1)
        found.append((old_next, new_next, limit))
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
            raise LivepatchError(
                "dependency_missing", "'diff' is not installed", "Install diffutils on the build host."
            ) from None
    return done.stdout


_TOKEN = re.compile(rb'/\*|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|\n')


def _places(lines: list[bytes]) -> list[bool]:
    """For each line, whether a directive may stand before it: in no comment, continued line or statement."""
    safe = []
    in_comment = False
    before = b";"
    for line in lines:
        safe.append(not in_comment and before[-1:] in b";{}:#")
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
            before = stripped
    return safe
