# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What is written down about a fleet: one folder each, locked by its keeper for as long as it lives."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

# Not below /run: Debian mounts that noexec, and programs must run from here.
BASE = Path("/var/lib/livepatch-testbed")


class TestbedError(Exception):
    """Something about the test bed that the caller has to know; the text says what to do."""

    __test__ = False  # its name begins like a test's, for pytest


@dataclass(frozen=True)
class Host:
    """One host: its name, its IPv4 address in the fleet's network, the pid of its first process out here."""

    name: str
    address: str
    pid: int


def folder(name: str) -> Path:
    """The folder of the fleet called NAME, there or not."""
    if not name or "/" in name or name.startswith("."):
        raise TestbedError(f"{name!r} cannot be a fleet's name: use letters, digits and dashes.")
    return BASE / name


def create(name: str) -> tuple[Path, int]:
    """Make the folder of a new fleet and lock it. Returns it, and the descriptor that holds the lock.

    What dead keepers left behind is removed first. Raises TestbedError when the fleet is up already.
    """
    place = folder(name)
    with _one_at_a_time():
        remove_leftovers()
        try:
            place.mkdir(mode=0o700)
        except FileExistsError:
            raise TestbedError(f"A fleet called {name} is up. Take it down first, or choose another name.") from None
        lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return place, lock


def remove_leftovers() -> list[str]:
    """Remove the folders whose keeper is dead; returns the names of these fleets."""
    dead = [place.name for place in _folders() if not alive(place)]
    for name in dead:
        shutil.rmtree(BASE / name, ignore_errors=True)
    return dead


def names() -> list[str]:
    """The fleets that are up now."""
    return sorted(place.name for place in _folders() if alive(place))


def alive(place: Path) -> bool:
    """Whether somebody holds the lock of the fleet in PLACE."""
    try:
        lock = os.open(place / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def write(place: Path, keeper: int, hosts: list[Host]) -> None:
    """Note the keeper's process id and the hosts."""
    content = {"keeper": keeper, "hosts": [asdict(host) for host in hosts]}
    (place / "fleet.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read(place: Path) -> tuple[int, tuple[Host, ...]]:
    """The keeper's process id and the hosts of a fleet that is up. Raises TestbedError when it is not."""
    if not alive(place):
        raise TestbedError(f"No fleet called {place.name} is up.")
    try:
        content = json.loads((place / "fleet.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TestbedError(f"The fleet {place.name} is not up yet.") from None
    return content["keeper"], tuple(Host(**host) for host in content["hosts"])


def _folders() -> list[Path]:
    return [place for place in BASE.iterdir() if place.is_dir()] if BASE.is_dir() else []


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Between making a folder and locking it, nobody may take it for a dead one."""
    BASE.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (BASE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
