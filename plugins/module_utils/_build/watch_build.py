# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Watching the project's own build: compilers of the same names, first on PATH, that note each call and then do it.

Nothing in the build changes: the same compilers run with the same arguments in the same folders. The notes say how each
object was compiled and which of them were linked into what. A build that names its compiler by an absolute path
(CC=/usr/bin/gcc) cannot be watched so, and is told.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from typing import Callable

from .._errors import LivepatchError
from .compile_command import HEEDED, CompileCommand

# A callback that tells a person what is being done.
Progress = Callable[[str], None]

_COMPILER = re.compile(r"(.*-)?(gcc|g\+\+|cc|c\+\+|c89|c99|clang|clang\+\+)(-[0-9.]+)?$")
_LAST_LINES, _LONGEST_LINE = 25, 300

_SECONDS_BETWEEN_REPORTS = 15.0

# One file a call. $$ alone can come round again in a long build; true (no special builtin) may fail without an exit.
# A call that cannot be noted is not made: the build would go well, and seem to lack what it compiled.
_SCRIPT = """#!/bin/sh
# Notes this call of a compiler for livepatch_build, then makes it.
set -C
n=0
while ! true 2>/dev/null > %(notes)s/"$$-$n"; do
  n=$((n + 1))
  if [ "$n" -gt 1000 ]; then
    echo "livepatch_build: no note of this call can be made in" %(notes)s >&2
    exit 125
  fi
done
printf '%%s\\0' "$(pwd -P)" %(real)s %(settings)s "$@" >| %(notes)s/"$$-$n" || exit 125
exec %(real)s "$@"
"""


def install_wrappers(folder: str, notes: str, path: str) -> int:
    """Put a noting wrapper into `folder` for every compiler on `path` (as $PATH); returns how many.

    `notes` is the folder for the notes; both are made, and may not be there yet.
    """
    os.makedirs(folder)
    os.makedirs(notes)
    settings = " ".join('"${%s-}"' % name for name in HEEDED)
    found = compilers_on(path)
    for name, real in found.items():
        wrapper = os.path.join(folder, name)
        with open(wrapper, "w", encoding="utf-8") as stream:
            stream.write(_SCRIPT % {"real": _quoted(real), "notes": _quoted(notes), "settings": settings})
        os.chmod(wrapper, 0o700)
    return len(found)


def compilers_on(path: str) -> dict[str, str]:
    """The compilers that a shell with this $PATH finds: name -> path."""
    found: dict[str, str] = {}
    for directory in path.split(os.pathsep):
        for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
            real = os.path.join(directory, name)
            if name not in found and _COMPILER.match(name) and os.access(real, os.X_OK):
                found[name] = real
    return found


def run_watched(
    tree: str,
    command: str,
    environment: dict[str, str],
    work: str,
    lock: int | None = None,
    progress: Progress | None = None,
) -> list[CompileCommand]:
    """Run a shell command in `tree` and return the compiler calls it made, in the order in which they began.

    `work` is a folder for wrappers, notes and log, emptied first. `lock` is a file descriptor that the command
    inherits: what it locks stays locked as long as something of the command runs, though we may be killed. Raises
    LivepatchError build_failed with the last lines of the output when the command fails.
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
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=tree,
            env=settings,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            pass_fds=() if lock is None else (lock,),
        )
    try:
        status = None
        while status is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(_SECONDS_BETWEEN_REPORTS)
            if status is None and progress:
                progress("the build command runs; it has called compilers %d times" % len(os.listdir(notes)))
    except BaseException:
        process.kill()
        process.wait()
        raise
    if status:
        raise LivepatchError(
            "build_failed", "the build command (%s) failed with status %d:\n%s" % (command, status, last_lines(log))
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
            words = stream.read().decode("utf-8", "surrogateescape").split("\0")
            found.append((os.fstat(stream.fileno()).st_mtime_ns, name, words[:-1]))
        if len(words) < 3 + len(HEEDED) or words[-1]:
            raise LivepatchError("build_failed", "the note of a compiler call was cut short: %s" % path)
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


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "'\\''") + "'"
