# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""redis: the series of security fixes after Debian's 7.0.15-1~deb12u7, whose binary is still served."""

from __future__ import annotations

import re

from ..program import Fix, Probe, Program
from ..running import Running
from ..sessions import Exchange, Stream


def _command(deployed: str, folder: str, port: int) -> list[str]:
    return f"{deployed} --port {port} --bind 127.0.0.1 --dir {folder} --appendonly no --save".split() + [""]


def _connect(port: int) -> Exchange:
    return Exchange(port, b"SET key value\r\nGET key\r\n", b"+OK\r\n$5\r\nvalue\r\n")


def _restored(running: Running, patches: list[str]) -> str:
    """What the server answers to the first RESTORE in the test that the patch brings."""
    with open(patches[0], encoding="utf-8") as stream:
        added = "".join(line for line in stream if line.startswith("+"))
    words = re.findall(r'(?i)RESTORE \S+ 0 "((?:\\x[0-9a-f]{2})+)"', added)
    payload = bytes.fromhex(words[0].replace("\\x", ""))
    connection = Stream(running.port)
    try:
        connection.send(b"DEL corpus\r\n")
        connection.line()
        connection.send(b"*4\r\n$7\r\nRESTORE\r\n$6\r\ncorpus\r\n$1\r\n0\r\n$%d\r\n%s\r\n" % (len(payload), payload))
        return connection.line().decode().strip()
    finally:
        connection.close()


_RESTORED = Probe(_restored, "+OK", "-ERR Bad data format")

REDIS = Program(
    name="redis",
    package="redis",
    stock="5:7.0.15-1~deb12u7",
    binaries=("redis-server", "redis-tools"),
    fixed="5:7.0.15-1~deb12u10",
    artifact="src/redis-server",
    deployed="usr/bin/redis-server",
    sources=r"(src|deps/lua/src)/.*\.[ch]$",
    command=_command,
    connect=_connect,
    fixes=(
        Fix("CVE-2026-23631", ("CVE-2026-23631.patch",)),
        Fix("CVE-2026-25243", ("CVE-2026-25243.patch",), _RESTORED),
        Fix("CVE-2026-66373", ("CVE-2026-66373.patch",), _RESTORED),
        Fix("CVE-2026-81934", ("CVE-2026-81934.patch",)),
        Fix("CVE-2026-92925", ("CVE-2026-92925.patch",)),
    ),
)
