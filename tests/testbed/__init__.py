# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts to test on: namespaces of this machine, each with its own SSH server, processes, network and files.

    with Fleet(hosts=3) as fleet:
        fleet.run(["ansible", "all", "-m", "ping"], check=True)
        fleet.exec("node1", ["cat", "/etc/hostname"])

A *fleet* is held by one process, its keeper, which lives in a network and a mount namespace of its own: the
*controller's* place, from where the hosts are reached. Its mounts, networks and processes exist in namespaces
only, so when the keeper ends, for whatever reason, the kernel takes them all away; nothing but a folder of
files can stay behind.
"""

from __future__ import annotations

from .fleet import Fleet
from .state import Host, TestbedError

__all__ = ["Fleet", "Host", "TestbedError"]
