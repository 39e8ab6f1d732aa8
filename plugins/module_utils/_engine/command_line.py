# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine by hand, without Ansible: python3 -m module_utils._engine.command_line ACTION PATCH
(with PYTHONPATH=plugins).

ACTION is load (a patch file), activate, deactivate, unload (a patch id) or facts; the result is printed as JSON, and
the exit status is 1 when any process failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from .._errors import LivepatchError
from .._patch.manifest import check_id
from .._patch.reader import read_patch_file
from .._process.selection import Selection
from .activate import Limits
from .facts import gather
from .operations import activate_patch, deactivate_patch, load_patch, unload_patch
from .outcome import Report


def main() -> int:
    """Carry out one action; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["load", "activate", "deactivate", "unload", "facts"])
    parser.add_argument("patch", nargs="?", default="", help="a patch file to load, else a patch id")
    parser.add_argument("--pid", type=int, action="append", default=[], help="only this process (may be repeated)")
    parser.add_argument("--max-stop-ms", type=float, default=100)
    parser.add_argument("--timeout", type=float, default=10, help="seconds")
    given = parser.parse_args()
    try:
        if given.action == "facts":
            _print(gather([given.patch] if given.patch else [], "affected"))
            return 0
        report = _act(given)
    except (LivepatchError, OSError) as error:
        sys.stderr.write("%s\n" % error)
        return 1
    _print({"processes": [asdict(outcome) for outcome in report.outcomes], "summary": report.summary()})
    return 1 if report.summary()["failed"] else 0


def _print(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _act(given: argparse.Namespace) -> Report:
    meant = Selection(pids=tuple(given.pid))
    if given.action == "load":
        return load_patch(read_patch_file(given.patch), meant)
    name = check_id(given.patch)
    if given.action == "unload":
        return unload_patch(name, meant, given.timeout)
    change = activate_patch if given.action == "activate" else deactivate_patch
    return change(name, meant, Limits(given.max_stop_ms / 1e3, given.timeout))


if __name__ == "__main__":
    raise SystemExit(main())
