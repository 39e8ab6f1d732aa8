# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The descriptions, by name."""

from __future__ import annotations

from ..program import Program
from .dnsmasq import DNSMASQ
from .expat import EXPAT
from .libarchive import LIBARCHIVE
from .libcurl import LIBCURL
from .libevent import LIBEVENT
from .libtiff import LIBTIFF
from .libxml2 import LIBXML2
from .memcached import MEMCACHED
from .mosquitto import MOSQUITTO
from .redis import REDIS, REDIS_OLDER

_ALL = (DNSMASQ, EXPAT, LIBARCHIVE, LIBCURL, LIBEVENT, LIBTIFF, LIBXML2, MEMCACHED, MOSQUITTO, REDIS, REDIS_OLDER)
PROGRAMS: dict[str, Program] = {program.name: program for program in _ALL}
