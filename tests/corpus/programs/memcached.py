# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""memcached: a server of several threads; Debian still serves the first binary of the release."""

from __future__ import annotations

from ..program import Fix, Program
from ..sessions import Exchange


def _command(deployed: str, _folder: str, port: int) -> list[str]:
    return [deployed, "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-u", "root", "-t", "4"]


def _connect(port: int) -> Exchange:
    set_and_get = b"set key 0 0 5\r\nvalue\r\nget key\r\n"
    return Exchange(port, set_and_get, b"STORED\r\nVALUE key 0 5\r\nvalue\r\nEND\r\n")


MEMCACHED = Program(
    name="memcached",
    package="memcached",
    stock="1.6.18-1",
    binaries=("memcached",),
    fixed="1.6.18-1+deb12u1",
    artifact="memcached",
    deployed="usr/bin/memcached",
    # Of Debian's build what makes the server; one for debugging and the tests are left out.
    build_command="dh_update_autotools_config && dh_autoreconf && debian/rules override_dh_auto_configure"
    " && make -j2 memcached",
    sources=r"[^/]+\.[ch]$",
    command=_command,
    connect=_connect,
    quick=True,
    fixes=(
        Fix(
            "CVE-2026-47783 CVE-2026-47784",
            ("0008-CVE-2026-47783-CVE-2026-47784.patch",),
            refused="nothing_changed",
            why="The fix is for --enable-sasl-pwdb, without which Debian builds: its memcached has no such code.",
        ),
        Fix(
            "CVE-2023-46852",
            ("0009-CVE-2023-46852.patch",),
            refused="not_in_object",
            why="The fix is for --enable-proxy, without which Debian builds: its memcached has no such file.",
        ),
        Fix(
            "CVE-2023-46853",
            ("CVE-2023-46853.patch",),
            refused="not_in_object",
            why="The fix is for --enable-proxy, without which Debian builds: its memcached has no such files.",
        ),
    ),
)
