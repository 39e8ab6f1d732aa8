# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Watching the project's own build: compilers of the same names, first on PATH, that note each call and then do it.

Nothing in the build changes: the same compilers run with the same arguments in the same folders. The notes say how each
object was compiled and which of them were linked into what. A build that names its compiler by an absolute path
(CC=/usr/bin/gcc) cannot be watched so, and is told.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Callable

from .._errors import LivepatchError
from .compile_command import HEEDED, CompileCommand

_COMPILER = re.compile(r"(.*-)?(gcc|g\+\+|cc|c\+\+|c89|c99|clang|clang\+\+)(-[0-9.]+)?$")
_LAST_LINES, _LONGEST_LINE = 25, 300

# One file a call. $$ alone can come round again in a long build; printf (no special builtin) may fail without an exit.
_SCRIPT = """#!/bin/sh
# Notes this call of a compiler for livepatch_build, then makes it.
set -C
n=0
while ! printf '%%s\\0' "$(pwd -P)" %(real)s %(settings)s "$@" 2>/dev/null > %(notes)s/"$$-$n"; do
  n=$((n + 1))
  [ "$n" -lt 10000 ] || break
done
exec %(real)s "$@"
"""


def install_wrappers(folder: str, notes: str, path: str) -> int:
    """Put a noting wrapper into `folder` for every compiler on `path` (as $PATH); returns how many.

    `notes` is the folder for the notes; both are made, and may not be there yet.
    """
    os.makedirs(folder)
    os.makedirs(notes)
    count = 0
    settings = " ".join('"${%s-}"' % name for name in HEEDED)
    for directory in path.split(os.pathsep):
        if not os.path.isdir(directory):
            continue
        for name in sorted(os.listdir(directory)):
            real = os.path.join(directory, name)
            wrapper = os.path.join(folder, name)
            if not _COMPILER.match(name) or not os.access(real, os.X_OK) or os.path.exists(wrapper):
                continue
            with open(wrapper, "w", encoding="utf-8") as stream:
                stream.write(_SCRIPT % {"real": _quoted(real), "notes": _quoted(notes), "settings": settings})
            os.chmod(wrapper, 0o700)
            count += 1
    return count


def run_watched(tree: str, command: str, environment: dict[str, str], work: str, what: str) -> list[CompileCommand]:
    """Run a shell command in `tree` and return the compiler calls it made, in the order in which they began.

    `work` is a folder for wrappers, notes and log, emptied first. Raises LivepatchError build_failed with the last
    lines of the output when the command fails.
    """
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    settings = {**os.environ, "CCACHE_DISABLE": "1", **environment}
    folder, notes = os.path.join(work, "compilers"), os.path.join(work, "notes")
    if not install_wrappers(folder, notes, settings.get("PATH", os.defpath)):
        raise LivepatchError("build_failed", "there is no C compiler on PATH", "Install gcc on the build host.")
    settings["PATH"] = folder + os.pathsep + settings.get("PATH", os.defpath)
    log = os.path.join(work, "log")
    with open(log, "wb") as stream:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=tree,
            env=settings,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        raise LivepatchError(
            "build_failed",
            "the %s (%s) failed with status %d:\n%s" % (what, command, done.returncode, last_lines(log)),
        )
    return read_notes(notes)


def last_lines(log: str) -> str:
    """The last lines of a build's output."""
    with open(log, encoding="utf-8", errors="replace") as stream:
        lines = stream.read().splitlines()[-_LAST_LINES:]
    return "\n".join(line if len(line) <= _LONGEST_LINE else line[:_LONGEST_LINE] + " ..." for line in lines)


def read_notes(notes: str) -> list[CompileCommand]:
    """The noted calls in the order in which they began."""
    found = []
    for name in os.listdir(notes):
        path = os.path.join(notes, name)
        with open(path, "rb") as stream:
            words = stream.read().decode("utf-8", "surrogateescape").split("\0")[:-1]
        if len(words) >= 2 + len(HEEDED):
            found.append((os.stat(path).st_mtime_ns, name, words))
    found.sort()
    return [_call(order, words) for order, (_when, _name, words) in enumerate(found)]


def _call(order: int, words: list[str]) -> CompileCommand:
    values = words[2 : 2 + len(HEEDED)]
    settings = tuple((name, value) for name, value in zip(HEEDED, values) if value)
    return CompileCommand(order, words[0], words[1], tuple(words[2 + len(HEEDED) :]), settings)


def require_calls(calls: list[CompileCommand], command: str) -> None:
    """Raises LivepatchError build_failed when a build that went well was not seen to compile anything."""
    if not any(call.stage() != "other" for call in calls):
        raise LivepatchError(
            "build_failed",
            "the build command (%s) worked, but was not seen to call a compiler: nothing was left to build, or the "
            "build names its compiler by an absolute path" % command,
            "Give a source tree that is not built yet, and name the compiler without a folder (CC=gcc).",
        )


# A callback that tells a person what is being done.
Progress = Callable[[str], None]


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "'\\''") + "'"
