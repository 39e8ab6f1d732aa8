# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Fifty hosts, some of them pairs, in one rollout with the waves that it has by default. Needs root."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fleet_rollout.greeters import NEW, Greeters
from testbed import Fleet

HOSTS, PAIRS = 50, 3


@pytest.mark.long
def test_fifty_hosts_in_one_rollout(tmp_path: Path) -> None:
    with Fleet(hosts=HOSTS, name=f"fifty-{os.getpid()}") as fleet:
        greeters = Greeters(fleet, tmp_path)
        greeters.build()
        for host in greeters.names:
            greeters.start(host)
        pairs = ["node%d: {livepatch_redundancy_group: pair%d}" % (10 + at, at // 2) for at in range(2 * PAIRS)]
        (tmp_path / "pairs.yml").write_text("fleet: {hosts: {%s}}\n" % ", ".join(pairs))
        inventories = ["-i", str(fleet.place / "inventory.yml"), "-i", str(tmp_path / "pairs.yml")]
        record = tmp_path / "end.json"
        greeters.play("rollout", 0, *inventories, livepatch_patch=str(greeters.patch), livepatch_record=str(record))
        assert greeters.all_say() == [NEW] * HOSTS
        hosts = json.loads(record.read_text())["hosts"]
        assert {state["state"] for state in hosts.values()} == {"active"}
        assert [sum(state["wave"] == wave for state in hosts.values()) for wave in (1, 2, 3)] == [1, 5, 44]
        # Whatever is kept for a host stays small.
        assert len(record.read_bytes()) < 1024 * HOSTS
