# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The crash-loop guard: a program that dies soon after it was patched, twice running, is started without that patch.

What it knows is kept in the store, one file a patch: {"format", "programs": {EXE: {"deaths": [{"pid", "at", "how"}],
"held": bool}}}. A process that outlives the window takes its program's deaths back. Only a person lifts a hold.
"""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from .._errors import LivepatchError
from .desired import MOST_BYTES, corrupt
from .files import make_folder, read_file, remove_file, write_file
from .store import Store

FORMAT = 1
MOST_DEATHS = 2
_MOST_PROGRAMS = 256
# What ends a program that went wrong. SIGTERM, SIGINT, SIGHUP and the like are how somebody ends one.
_CRASHES = frozenset(
    (
        signal.SIGSEGV,
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGILL,
        signal.SIGFPE,
        signal.SIGTRAP,
        signal.SIGSYS,
        signal.SIGKILL,
    )
)


def death(status: int, is_service: bool) -> str:
    """How a process died by its wait status, in words; empty where that counts as no crash.

    `is_service`: started through the launcher; there an exit status other than 0 counts, too. A command that a shell
    starts may well end with 1 each time.
    """
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in _CRASHES:
        return "signal %d (%s)" % (os.WTERMSIG(status), signal.Signals(os.WTERMSIG(status)).name)
    if is_service and os.WIFEXITED(status) and os.WEXITSTATUS(status):
        return "exit status %d" % os.WEXITSTATUS(status)
    return ""


def held_programs(store: Store, patch_id: str) -> dict[str, list[dict[str, Any]]]:
    """The programs that a patch is held back from, with the deaths that led to it.

    A damaged file holds nothing back, and raises LivepatchError store_corrupt.
    """
    programs = _read(store, patch_id)
    return {exe: known["deaths"] for exe, known in programs.items() if known["held"]}


def is_held(store: Store, patch_id: str, exe: str) -> bool:
    """Whether a patch is held back from a program. Raises LivepatchError store_corrupt."""
    return exe in held_programs(store, patch_id)


def note_death(store: Store, patch_id: str, exe: str, pid: int, at: int, how: str) -> bool:
    """A patched process of program `exe` crashed within the window; True when that makes the patch held back now."""
    programs = _read(store, patch_id, forgiving=True)
    known = programs.setdefault(exe, {"deaths": [], "held": False})
    before = known["held"]
    known["deaths"] = [*known["deaths"][-MOST_DEATHS:], {"pid": pid, "at": at, "how": how}]
    known["held"] = before or len(known["deaths"]) >= MOST_DEATHS
    _write(store, patch_id, programs)
    return bool(known["held"] and not before)


def note_survival(store: Store, patch_id: str, exe: str) -> None:
    """A patched process of program `exe` outlived the window: deaths before it do not count any more."""
    programs = _read(store, patch_id, forgiving=True)
    if exe in programs and not programs[exe]["held"]:
        del programs[exe]
        _write(store, patch_id, programs)


def lift(store: Store, patch_id: str) -> bool:
    """Forget all deaths: the patch is applied again. True when it was held back from any program."""
    held = any(known["held"] for known in _read(store, patch_id, forgiving=True).values())
    removed = remove_file(_path(store, patch_id)) if os.path.isdir(store.held_folder) else False
    return held and removed


def _path(store: Store, patch_id: str) -> str:
    return os.path.join(store.held_folder, patch_id + ".json")


def _write(store: Store, patch_id: str, programs: dict[str, Any]) -> None:
    make_folder(store.places.store)
    make_folder(store.held_folder)
    kept = dict(list(programs.items())[-_MOST_PROGRAMS:])
    raw = json.dumps({"format": FORMAT, "programs": kept}, indent=2, sort_keys=True) + "\n"
    write_file(_path(store, patch_id), raw.encode("ascii"))


def _read(store: Store, patch_id: str, forgiving: bool = False) -> dict[str, Any]:
    path = _path(store, patch_id)
    try:
        plain = json.loads(read_file(path, MOST_BYTES).decode("ascii"))
        programs = plain["programs"]
        if plain["format"] != FORMAT or not all(_is_program(known) for known in programs.values()):
            raise ValueError("it does not have the fields it must have")
        return dict(programs)
    except FileNotFoundError:
        return {}
    except LivepatchError:
        if not forgiving:
            raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if not forgiving:
            raise corrupt(path, str(error)) from None
    return {}


def _is_program(known: Any) -> bool:
    deaths = known["deaths"]
    return (
        isinstance(known["held"], bool)
        and isinstance(deaths, list)
        and all(set(one) == {"pid", "at", "how"} and isinstance(one["how"], str) for one in deaths)
    )
