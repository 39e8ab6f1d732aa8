# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""redis: the security fixes after Debian's 7.0.15-1~deb12u7, whose binary is still served; and those before it."""

from __future__ import annotations

import dataclasses
import re

from ..program import Fix, Probe, Program
from ..running import Running
from ..sessions import Exchange, Stream


def _command(deployed: str, folder: str, port: int) -> list[str]:
    return f"{deployed} --port {port} --bind 127.0.0.1 --dir {folder} --appendonly no --save".split() + [""]


def _connect(port: int) -> Exchange:
    return Exchange(port, b"SET key value\r\nGET key\r\n", b"+OK\r\n$5\r\nvalue\r\n")


def _asked(running: Running, *commands: tuple[bytes | str, ...]) -> str:
    """The line, or the string, that the last of some commands is answered."""
    connection = Stream(running.port)
    try:
        for command in commands:
            words = [word if isinstance(word, bytes) else word.encode() for word in command]
            parts = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
            connection.send(b"*%d\r\n%s" % (len(words), parts))
            line = connection.line()
            if line.startswith(b"$"):
                line = connection.line()
        return line.decode().strip().partition(" script:")[0]
    finally:
        connection.close()


def _answered(*command: str, unfixed: str, fixed: str) -> Probe:
    """What one command is answered."""
    return Probe(lambda running, _patches: _asked(running, command), unfixed, fixed)


def _restored(running: Running, patches: list[str]) -> str:
    """What the server answers to the first RESTORE in the test that the patch brings."""
    with open(patches[0], encoding="utf-8") as stream:
        added = "".join(line for line in stream if line.startswith("+"))
    found = re.findall(r'(?i)RESTORE \S+ 0 "((?:\\x[0-9a-f]{2})+)"', added)
    payload = bytes.fromhex(found[0].replace("\\x", ""))
    return _asked(running, ("DEL", "corpus"), ("RESTORE", "corpus", "0", payload))


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

REDIS_OLDER = dataclasses.replace(
    REDIS,
    name="redis-older",
    stock="",
    binaries=(),
    fixes=(
        Fix(
            "CVE-2024-31227 CVE-2024-31228 CVE-2024-31449",
            ("0001-Apply-security-fixes-for-CVEs-1113.patch",),
            _answered("EVAL", "return bit.tohex(65535, -2147483648)", "0", unfixed="", fixed="0000FFFF"),
        ),
        Fix("CVE-2024-46981", ("0001-Fix-LUA-garbage-collector-CVE-2024-46981-1513.patch",)),
        Fix(
            "CVE-2024-51741",
            ("0002-Fix-Read-Write-key-pattern-selector-CVE-2024-51741-1.patch",),
            _answered(
                "ACL",
                "SETUSER",
                "corpus",
                "%",
                unfixed="+OK",
                fixed="-ERR Error in ACL SETUSER modifier '%': Syntax error",
            ),
        ),
        Fix("CVE-2025-21605", ("0001-Limiting-output-buffer-for-unauthenticated-client-CV.patch",)),
        Fix(
            "CVE-2025-27151",
            ("0005-CVE-2025-27151.patch",),
            refused="entry_changed",
            refuses="redis_check_aof_main",
            why="The fix is in the main function of redis-check-aof, which lies in the server's file as well: it is"
            " entered once, ends the program, and does not run in a server.",
        ),
        Fix("CVE-2025-32023", ("0006-CVE-2025-32023.patch",)),
        Fix("CVE-2025-48367", ("0007-CVE-2025-48367.patch",)),
        Fix("CVE-2025-46817", ("CVE-2025-46817.patch",)),
        Fix(
            "CVE-2025-46818",
            ("CVE-2025-46818.patch",),
            refused="layout_changed",
            refuses="lua_enable_deprecated_api",
            why="The fix comes with a new setting: in the server's state, in the table of settings, and in lists of"
            " names that were read at the start.",
        ),
        Fix("CVE-2025-49844", ("CVE-2025-49844.patch",)),
        Fix("CVE-2025-46819", ("CVE-2025-46819.patch",)),
        Fix(
            "CVE-2025-67733",
            ("CVE-2025-67733.patch",),
            _answered(
                "EVAL",
                "error(redis.error_reply('X\\r\\n+INJECTED'))",
                "0",
                unfixed="-ERR X",
                fixed="-ERR X  +INJECTED",
            ),
        ),
        Fix("CVE-2026-21863", ("CVE-2026-21863.patch",)),
    ),
)
