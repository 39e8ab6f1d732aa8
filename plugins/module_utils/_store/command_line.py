# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""livepatch-store: what this host should have, without Ansible.

status    what is desired, held back and switched off, as JSON
apply     give every process what it lacks now; the exit status is 1 when any failed
release   PATCH: apply a patch again that the crash-loop guard held back
daemon    the service (systemd runs it)
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from .._errors import LivepatchError
from . import guard
from .apply import apply_to_all
from .audit import DONE, Deed, record, record_applied
from .daemon import Daemon
from .kill_switch import switched_off
from .places import Places
from .status import status
from .store import Store
from .wanted import Wishes

_NAME = "livepatch-store"


def main(arguments: list[str] | None = None) -> int:
    """Carry out one action; the exit status."""
    parser = argparse.ArgumentParser(
        prog=_NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["status", "apply", "release", "daemon"])
    parser.add_argument("patch", nargs="?", default="", help="id of a patch, for release")
    parser.add_argument("--root", default="", help="folder that holds all files, for tests")
    parser.add_argument("--guard-seconds", type=float, default=10.0, help="how long after its patch a crash counts")
    given = parser.parse_args(arguments)
    try:
        return _act(given, Store(Places(given.root)))
    except (LivepatchError, OSError) as error:
        sys.stderr.write("%s\n" % error)
        return 1


def _act(given: argparse.Namespace, store: Store) -> int:
    if given.action == "daemon":
        Daemon(store.places, given.guard_seconds).run()
        return 0
    if given.action == "release":
        if not guard.lift(store, given.patch):
            sys.stderr.write("patch %s was not held back\n" % given.patch)
        else:
            _complain(record(store.places, Deed("release", DONE, _NAME, given.patch)))
        return 0
    if given.action == "status":
        _print(status(store))
        return 0
    off = switched_off(store.places)
    if off:
        sys.stderr.write("nothing is applied: %s\n" % off)
        return 1
    entries, errors = store.entries()
    done = apply_to_all(store, Wishes(store, entries))
    _complain(*record_applied(store.places, done, _NAME))
    _print({"processes": [asdict(one) for one in done], "errors": [error.as_dict() for error in errors]})
    return 1 if errors or any(one.failed or one.held for one in done) else 0


def _complain(*problems: str) -> None:
    for problem in problems:
        sys.stderr.write(problem + "\n" if problem else "")


def _print(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
