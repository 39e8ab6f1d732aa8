# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The descriptions, by name."""

from __future__ import annotations

from ..program import Program
from .libevent import LIBEVENT
from .libxml2 import LIBXML2
from .memcached import MEMCACHED
from .redis import REDIS

PROGRAMS: dict[str, Program] = {program.name: program for program in (LIBEVENT, LIBXML2, MEMCACHED, REDIS)}
