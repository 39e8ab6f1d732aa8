# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The host program for libraries: hosts/host.py with one file of functions."""

from __future__ import annotations

import os
from typing import Callable

HOSTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "hosts")


def hosted(name: str) -> Callable[[str, str, int], list[str]]:
    """How it is started with hosts/`name`.py."""

    def command(_deployed: str, _folder: str, port: int) -> list[str]:
        return ["/usr/bin/python3", os.path.join(HOSTS, "host.py"), os.path.join(HOSTS, name + ".py"), str(port)]

    return command
