# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Telling the journal, with fields of one's own: its native protocol (systemd's "Native Journal Protocol").

One datagram: `NAME=value` and a line's end for each field; a value of several lines has its length before it.
"""

from __future__ import annotations

import socket
import struct

#: What all our messages have in common (MESSAGE_ID): journalctl MESSAGE_ID=... finds them.
MESSAGE_ID = "6d7f3d1f0a5b4f2b9a5c0e4c3f1d8b27"
ERROR, WARNING, NOTICE = 3, 4, 5
# A datagram holds more; what is longer is cut off here, and whole in the log.
_MOST_VALUE = 2048


def tell(path: str, fields: dict[str, str]) -> bool:
    """Send one message to the journal's socket at `path`; False where there is no journal, or it does not take it."""
    raw = b"".join(_field(name, value) for name, value in fields.items() if value)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(1.0)
            sender.sendto(raw, path)
    except OSError:
        return False
    return True


def _field(name: str, value: str) -> bytes:
    raw = value.encode("utf-8", "replace")[:_MOST_VALUE]
    if b"\n" in raw:
        return name.encode("ascii") + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n"
    return name.encode("ascii") + b"=" + raw + b"\n"
