# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Asking a compiler: for one source what the build asked, with other outputs, and many at once."""

from __future__ import annotations

import functools
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Iterable, TypeVar

from .link_inputs import Unit
from .watch_build import Progress

_In = TypeVar("_In")
_Out = TypeVar("_Out")
# A compilation takes some hundred MB at times: as many as there are processors, but no more than this.
_MOST_AT_ONCE = 16
_SECONDS_BETWEEN_REPORTS = 5.0


def in_parallel(
    function: Callable[[_In], _Out], rows: Iterable[_In], what: str = "", progress: Progress | None = None
) -> list[_Out]:
    """function(row) for every row, as many at once as there are processors; results in order.

    `progress` is told now and then how many are done of `what`. The first exception ends it: what has not begun yet
    does not begin.
    """
    with ThreadPoolExecutor(max_workers=min(len(os.sched_getaffinity(0)), _MOST_AT_ONCE)) as pool:
        waiting = [pool.submit(function, row) for row in rows]
        results: list[_Out] = []
        told = time.monotonic()
        try:
            for one in waiting:
                results.append(one.result())
                if progress and time.monotonic() - told > _SECONDS_BETWEEN_REPORTS:
                    told = time.monotonic()
                    progress("%s: %d of %d" % (what, sum(other.done() for other in waiting), len(waiting)))
        finally:
            for one in waiting:
                one.cancel()
    return results


def run_compiler(unit: Unit, options: list[str], with_messages: bool) -> tuple[int, bytes]:
    """Exit status and output of the unit's own command with these options in place of its outputs.

    `with_messages`: its warnings and errors are part of the output.
    """
    done = subprocess.run(
        unit.command.for_source(unit.word, options),
        cwd=unit.command.folder,
        env=unit.command.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if with_messages else subprocess.DEVNULL,
        check=False,
    )
    return done.returncode, done.stdout


def version_text(program: str) -> str:
    """What a compiler or assembler says when asked for its version, "" when it says nothing."""
    done = subprocess.run(
        [program, "--version"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    return done.stdout.decode("utf-8", "replace")


@functools.lru_cache(maxsize=None)
def is_clang(compiler: str) -> bool:
    """True when a compiler calls itself clang; asked once."""
    return "clang" in version_text(compiler)


@functools.lru_cache(maxsize=None)
def programs_of(compiler: str) -> tuple[str, ...]:
    """The paths of the programs that a compiler runs (GCC manual, -print-prog-name); asked once."""
    found = [compiler]
    for name in ("cc1", "cc1plus", "as", "collect2", "ld"):
        done = subprocess.run(
            [compiler, "-print-prog-name=" + name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
        )
        path = done.stdout.decode("utf-8", "surrogateescape").strip()
        if os.path.isabs(path) and os.path.exists(path):
            found.append(path)
    return tuple(found)
