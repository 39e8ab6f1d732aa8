# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A fleet of four hosts over real SSH, each running the greeter."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from fleet_rollout.greeters import Greeters
from testbed import Fleet


@pytest.fixture(scope="module")
def greeters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Greeters]:
    """Hosts with running greeters; nothing patched at first, and each test leaves them so."""
    with Fleet(hosts=4, name=f"rollout-{os.getpid()}") as fleet:
        made = Greeters(fleet, tmp_path_factory.mktemp("greeters"))
        made.build()
        for host in made.names:
            made.start(host)
        yield made
