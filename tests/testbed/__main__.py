# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The test bed by hand: see tests/fleet --help."""

from __future__ import annotations

import argparse
import shlex
import sys
import time

from . import access, state
from .fleet import Fleet

_USAGE = """\
tests/fleet up [HOSTS]            bring a fleet of HOSTS (3) up; it stays until it is taken down
tests/fleet run COMMAND...        run a command on the controller's side, with settings to suit
tests/fleet exec HOST COMMAND...  run a command on a host, past SSH
tests/fleet env                   print the variables with which Ansible's commands use the fleet (for eval)
tests/fleet list                  name the fleets that are up
tests/fleet down                  take the fleet down, and remove what dead ones left behind
each with --name NAME before it, to have several fleets
"""


def main() -> int:
    """Carry out one command of the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="tests/fleet", usage=_USAGE)
    parser.add_argument("--name", default="default", help="the fleet meant (default: %(default)s)")
    parser.add_argument("action", choices=["up", "run", "exec", "env", "list", "down"])
    parser.add_argument("words", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    try:
        return _do(arguments.name, arguments.action, arguments.words)
    except state.TestbedError as error:
        print(f"tests/fleet: {error}", file=sys.stderr)
        return 1
    except (IndexError, ValueError):
        parser.error(f"{arguments.action}: something is missing or is no number")


def _do(name: str, action: str, words: list[str]) -> int:
    if action == "up":
        begin = time.monotonic()
        fleet = Fleet(hosts=int(words[0]) if words else 3, name=name, detached=True).start()
        print(f"{fleet.count} hosts up in {time.monotonic() - begin:.1f} s: {_span(fleet)}")
        print(f'To use them: eval "$(tests/fleet --name {name} env)" and ansible all -m ping')
    elif action == "list":
        for up in state.names():
            print(f"{up}: {_span(Fleet.running(up))}")
    elif action == "down":
        for dead in state.remove_leftovers():
            print(f"{dead}: removed what was left of it")
        Fleet.running(name).stop()
        print(f"{name}: down")
    else:
        return _inside(Fleet.running(name), action, words)
    return 0


def _inside(fleet: Fleet, action: str, words: list[str]) -> int:
    if action == "env":
        for variable, value in access.environment(fleet.place).items():
            print(f"export {variable}={shlex.quote(value)}")
        return 0
    if action == "run":
        return fleet.run([words[0], *words[1:]]).returncode
    return fleet.exec(words[0], [words[1], *words[2:]], capture_output=False).returncode


def _span(fleet: Fleet) -> str:
    names = [host.name for host in fleet.hosts]
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


if __name__ == "__main__":
    sys.exit(main())
