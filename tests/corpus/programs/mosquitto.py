# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""mosquitto, built without its security fixes: the older version's source is not served any more."""

from __future__ import annotations

import os

from ..program import Fix, Program
from ..sessions import Stream


def _command(deployed: str, folder: str, port: int) -> list[str]:
    path = os.path.join(folder, "mosquitto.conf")
    with open(path, "w", encoding="ascii") as stream:
        stream.write(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n")
    return [deployed, "-c", path]


class Publications:
    """Messages with QoS 1, each acknowledged by the broker (MQTT 3.1.1)."""

    def __init__(self, port: int) -> None:
        self._stream = Stream(port)
        self._stream.send(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00")
        self._stream.expect(b"\x20\x02\x00\x00")

    def ask(self) -> None:
        """PUBLISH and PUBACK."""
        self._stream.send(b"\x32\x07\x00\x01t\x00\x01hi")
        self._stream.expect(b"\x40\x02\x00\x01")

    def close(self) -> None:
        """End the connection."""
        self._stream.close()


MOSQUITTO = Program(
    name="mosquitto",
    package="mosquitto",
    fixed="2.0.11-1.2+deb12u2",
    artifact="obj-x86_64-linux-gnu/src/mosquitto",
    deployed="usr/sbin/mosquitto",
    sources=r"(src|lib)/[^/]+\.[ch]$",
    command=_command,
    connect=Publications,
    fixes=(
        Fix(
            "CVE-2021-34434",
            ("CVE-2021-34434.patch",),
            refused="entry_changed layout_changed",
            refuses="shared_subs",
            why="The subscriptions of a client move into one list: clients that are connected have two. main knows the"
            " new size of what it made.",
        ),
        Fix("CVE-2023-3592", ("CVE-2023-3592.patch",)),
        Fix("CVE-2023-0809", ("CVE-2023-0809.patch",)),
        Fix(
            "CVE-2023-28366",
            ("CVE-2023-28366.patch",),
            refused="layout_changed signature_changed",
            refuses="dup",
            why="What says that a message came twice becomes a number in messages that wait; a function whose address"
            " may be known gives them in place of their contents.",
        ),
        Fix(
            "CVE-2024-8376",
            ("CVE-2024-8376-1of3.patch", "CVE-2024-8376-2of3.patch", "CVE-2024-8376-3of3.patch"),
            refused="entry_changed layout_changed signature_changed",
            refuses="mosquitto_db",
            why="The broker's one table of subscriptions becomes two, in a variable that main fills at the start.",
        ),
    ),
)
