# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Which inputs are worth keeping: python tests/fuzz/shrink.py TARGET... [--with FILE...]

Of what is kept, and what the fuzzer has found (.build/fuzz-corpus), the shortest that together run every step from line
to line of our code that all of them run; also what --with names, whatever it runs: an input that once was a finding.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

_HERE = Path(__file__).resolve().parent
sys.path += [str(_HERE.parents[1] / "plugins"), str(_HERE)]

from kept_inputs import keep, kept  # noqa: E402
from targets import TARGETS  # noqa: E402

_OURS = os.sep + "module_utils" + os.sep
Step = tuple[str, int, int]


def steps(target: str, data: bytes) -> set[Step]:
    """(file, line, next line) of our own code that an input runs."""
    found: set[Step] = set()

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if _OURS not in frame.f_code.co_filename:
            return None
        last = frame.f_code.co_firstlineno

        def line(inner: FrameType, event: str, _argument: Any) -> Any:
            nonlocal last
            if event == "line":
                found.add((inner.f_code.co_filename, last, inner.f_lineno))
                last = inner.f_lineno
            return line

        return line

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        TARGETS[target](data)
    finally:
        sys.settrace(before)
    return found


def shrunk(target: str, inputs: list[bytes]) -> tuple[list[bytes], set[Step]]:
    """The inputs worth keeping, and all that they run."""
    wanted, seen = [], set()
    for one in sorted(set(inputs), key=lambda one: (len(one), one)):
        new = steps(target, one) - seen
        if new:
            wanted.append(one)
            seen |= new
    return wanted, seen


def main() -> None:
    """Write the corpus of each target anew, and say what it runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", default=sorted(TARGETS))
    parser.add_argument("--with", dest="added", nargs="*", default=[])
    given = parser.parse_args()
    for target in given.targets or sorted(TARGETS):
        folder = _HERE.parents[1] / ".build" / "fuzz-corpus" / target
        found = [path.read_bytes() for path in folder.iterdir()] if folder.exists() else []
        wanted, seen = shrunk(target, [*kept(target), *found])
        keep(target, [*wanted, *(Path(name).read_bytes() for name in given.added)])
        files: dict[str, set[int]] = {}
        for file, _last, line in seen:
            files.setdefault(file.rpartition(_OURS)[2], set()).add(line)
        sys.stdout.write("%s: %d inputs, %d steps\n" % (target, len(wanted), len(seen)))
        for file, lines in sorted(files.items()):
            sys.stdout.write("    %-32s %d lines\n" % (file, len(lines)))


if __name__ == "__main__":
    main()
