# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a rollout takes over many hosts, beside three ping tasks over the same hosts: python -m fleet_rollout.scale.

    python -m fleet_rollout.scale [HOSTS [PAIRS]]

Both are measured with the same forks, over the same SSH connections, which are open before. It fails when the rollout,
with the waves that it has by default, takes more than 1.5 times as long, or does not end with every host patched.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fleet_rollout.greeters import NEW, Greeters
from testbed import Fleet

MOST = 1.5
ROUNDS = 3
PINGS = """\
- name: Three pings
  hosts: all
  gather_facts: false
  tasks:
    - name: One
      ansible.builtin.ping:
    - name: Two
      ansible.builtin.ping:
    - name: Three
      ansible.builtin.ping:
"""


def main(count: int, pairs: int) -> int:
    """Measure and print; returns the exit status."""
    with tempfile.TemporaryDirectory() as folder, Fleet(hosts=count) as fleet:
        work = Path(folder)
        greeters = Greeters(fleet, work)
        greeters.build()
        for host in greeters.names:
            greeters.start(host)
        paired = [
            "%s: {livepatch_redundancy_group: pair%d}" % (name, at // 2) for at, name in enumerate(greeters.names)
        ]
        (work / "pairs.yml").write_text("fleet: {hosts: {%s}}\n" % ", ".join(paired[: pairs * 2]))
        (work / "pings.yml").write_text(PINGS)
        inventory = ["-i", str(fleet.place / "inventory.yml"), "-i", str(work / "pairs.yml")]
        pings = ["ansible-playbook", *inventory, str(work / "pings.yml")]
        rollout = greeters.command("rollout", *inventory, livepatch_patch=str(greeters.patch))
        rollback = greeters.command("rollback", *inventory, livepatch_patch="fix-greeting")
        _timed(greeters, pings)
        taken: dict[str, list[float]] = {"pings": [], "rollout": []}
        for number in range(ROUNDS):
            taken["pings"].append(_timed(greeters, pings))
            taken["rollout"].append(_timed(greeters, rollout))
            if set(greeters.all_say()) != {NEW}:
                print("not every host is patched")
                return 1
            if number + 1 < ROUNDS:
                _timed(greeters, rollback)
    low, high = (statistics.median(taken[name]) for name in ("pings", "rollout"))
    print("%d hosts, %d pairs among them, median of %d rounds" % (count, pairs, ROUNDS))
    print("three pings  %7.1f s  %s" % (low, " ".join("%.1f" % one for one in taken["pings"])))
    print("the rollout  %7.1f s  %s" % (high, " ".join("%.1f" % one for one in taken["rollout"])))
    print("ratio        %7.2f    (at most %.1f)" % (high / low, MOST))
    return 0 if high <= MOST * low else 1


def _timed(greeters: Greeters, command: list[str]) -> float:
    begin = time.monotonic()
    done = greeters.fleet.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=greeters.environment())
    taken = time.monotonic() - begin
    if done.returncode:
        raise SystemExit("%s failed:\n%s" % (" ".join(command[:2]), done.stdout[-3000:]))
    return taken


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    sys.exit(main(*(numbers + [200, 0][len(numbers) :])))
