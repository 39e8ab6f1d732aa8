# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""dnsmasq, built without its security fixes: the archive serves no older binary."""

from __future__ import annotations

import socket
import struct

from ..program import Fix, Program


def _command(deployed: str, _folder: str, port: int) -> list[str]:
    return [
        deployed,
        "--keep-in-foreground",
        f"--port={port}",
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
        "--no-resolv",
        "--no-hosts",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--address=/x.example/10.1.2.3",
    ]


class Queries:
    """DNS over UDP; a datagram that is not answered is lost (RFC 1035)."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(5)
        self._socket.connect(("127.0.0.1", port))
        self._number = 0

    def ask(self) -> None:
        """The address of x.example."""
        self._number = (self._number + 1) % 65536
        question = b"\x01x\x07example\x00" + struct.pack(">HH", 1, 1)
        self._socket.send(struct.pack(">HHHHHH", self._number, 0x0100, 1, 0, 0, 0) + question)
        answer = self._socket.recv(512)
        assert answer[:2] == struct.pack(">H", self._number), answer
        assert answer.endswith(bytes([10, 1, 2, 3])), answer

    def close(self) -> None:
        """End it."""
        self._socket.close()


DNSMASQ = Program(
    name="dnsmasq",
    package="dnsmasq",
    fixed="2.90-4~deb12u2",
    artifact="src/dnsmasq",
    deployed="usr/sbin/dnsmasq",
    # debian/rules builds when it installs, with these options.
    build_command="eval $(DEB_BUILD_MAINT_OPTIONS=hardening=+all dpkg-buildflags --export=sh) && make -j2 all"
    ' CFLAGS="$CFLAGS $CPPFLAGS" LDFLAGS="$LDFLAGS"'
    ' COPTS="-DHAVE_DBUS -DHAVE_LIBIDN2 -DHAVE_NFTSET -DHAVE_CONNTRACK -DHAVE_DNSSEC"',
    sources=r"src/[^/]+\.[ch]$",
    command=_command,
    connect=Queries,
    fixes=(
        Fix(
            "CVE-2026-2291",
            ("CVE-2026-2291.patch",),
            refused="layout_changed",
            refuses="bigname",
            why="Long names get twice the room: those that the cache has already, and uses again, are too small.",
        ),
        Fix("CVE-2026-4890", ("CVE-2026-4890.patch",)),
        Fix("CVE-2026-4891", ("CVE-2026-4891.patch",)),
        Fix("CVE-2026-4892", ("CVE-2026-4892.patch",)),
        Fix("CVE-2026-4893", ("CVE-2026-4893.patch",)),
        Fix("CVE-2026-5172", ("CVE-2026-5172.patch",)),
    ),
)
