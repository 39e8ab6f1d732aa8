# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Ask a running server how it takes the payloads, and print its answers as JSON.

    probe.py PORT holes PATCH     {test: answer}; OK: not fixed, ERR Bad data format: fixed
    probe.py PORT leak            {"leaked": bytes}; how far RESTORE_COUNT refused values made the server grow
    probe.py PORT oversize PATCH  {"oversize": answer}; ends an unfixed server

The first two change nothing in the data and may be asked of any server as often as one likes.
"""

from __future__ import annotations

import json
import sys
import uuid

import payloads
from client import Client, Refused

FIXED = "ERR Bad data format"
UNFIXED = "OK"
RESTORE_COUNT = 500


def restore(client: Client, payload: bytes) -> str:
    """What the server says to RESTORE under a new key, which is deleted again."""
    key = f"probe:{uuid.uuid4()}"
    try:
        answer = client.call("RESTORE", key, 0, payload)
    except Refused as refused:
        return str(refused)
    client.call("DEL", key)
    return str(answer)


def holes(port: int, patch: str) -> dict[str, str]:
    """The server's answers to upstream's payloads."""
    with Client(port) as client:
        return {name: restore(client, payload) for name, payload in payloads.holes(patch).items()}


def oversize(port: int, patch: str) -> dict[str, str]:
    """The server's answer to a string of nearly 2^64 bytes; ConnectionError if it dies of it."""
    with Client(port) as client:
        return {"oversize": restore(client, payloads.oversize(patch))}


def leak(port: int) -> dict[str, int]:
    """By how many bytes the server's allocated memory grew over RESTORE_COUNT values that it refused."""
    payload = payloads.duplicate_field()
    with Client(port) as client:
        before = int(client.info("memory")["used_memory"])
        answers = {restore(client, payload) for _count in range(RESTORE_COUNT)}
        after = int(client.info("memory")["used_memory"])
    assert answers == {FIXED}, answers
    return {"leaked": after - before}


def main() -> int:
    questions = {"holes": holes, "leak": leak, "oversize": oversize}
    if len(sys.argv) < 3 or sys.argv[2] not in questions:
        print(__doc__, file=sys.stderr)
        return 2
    print(json.dumps(questions[sys.argv[2]](int(sys.argv[1]), *sys.argv[3:])))  # type: ignore[operator]
    return 0


if __name__ == "__main__":
    sys.exit(main())
