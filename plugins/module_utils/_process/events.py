# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel tells of processes as it happens: forks, programs begun, exits (connector, linux/cn_proc.h).

Only root of the initial namespaces is told anything; elsewhere the kernel takes the request and stays silent, so it is
asked for one event of our own making. A classic BPF filter keeps what nobody asked for from waking us.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import struct
from dataclasses import dataclass

from .._errors import LivepatchError

FORK, EXEC, EXIT = 0x1, 0x2, 0x80000000
_NETLINK_CONNECTOR, _CN_IDX_PROC, _CN_VAL_PROC, _PROC_CN_MCAST_LISTEN = 11, 1, 1, 1
_NLMSG_DONE = 3
_EVENT_AT = 16 + 20  # struct nlmsghdr, struct cn_msg
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33
_BUFFER = 4 << 20
_PROOF = 2.0


@dataclass(frozen=True)
class Event:
    """One event. `pid`: the process; for FORK its child is `child`; for EXIT `status` is as wait(2) gives it."""

    kind: int
    pid: int
    child: int = 0
    status: int = 0


class EventsLost(Exception):
    """The kernel had more to tell than there was room for."""


class ProcessEvents:
    """An open connection to the kernel's process events."""

    def __init__(self) -> None:
        """Raises LivepatchError not_permitted where the kernel does not tell us anything."""
        try:
            self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_CONNECTOR)
            self.socket.bind((0, _CN_IDX_PROC))
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        except OSError as error:
            raise _silent(os.strerror(error.errno or 0)) from None
        body = struct.pack("=IIIIHHI", _CN_IDX_PROC, _CN_VAL_PROC, 0, 0, 4, 0, _PROC_CN_MCAST_LISTEN)
        try:
            self.socket.send(struct.pack("=IHHII", 16 + len(body), _NLMSG_DONE, 0, 0, os.getpid()) + body)
            self._prove()
            self._filter()
        except OSError as error:
            self.close()
            raise _silent(os.strerror(error.errno or 0)) from None
        self.socket.setblocking(False)

    def close(self) -> None:
        """Listen no more."""
        self.socket.close()

    def read(self) -> list[Event]:
        """All that was told since the last time. Raises EventsLost."""
        found: list[Event] = []
        while True:
            try:
                raw = self.socket.recv(1 << 16)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise EventsLost from None
                raise
            event = _parse(raw)
            if event:
                found.append(event)

    def _prove(self) -> None:
        """Be told of a process that we make."""
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        while select.select([self.socket], [], [], _PROOF)[0]:
            event = _parse(self.socket.recv(1 << 16))
            if event and child in (event.pid, event.child):
                return
        self.close()
        raise _silent("it did not tell of a process that was made to try it")

    def _filter(self) -> None:
        """Let only forks of processes, execs, and exits through: numbers are compared in network byte order."""
        load, equal, take = 0x20, 0x15, 0x06
        wanted = [socket.htonl(kind) for kind in (FORK, EXEC, EXIT)]
        program = [(load, 0, 0, _EVENT_AT)]
        program += [(equal, len(wanted) - index, 0, kind) for index, kind in enumerate(wanted)]
        program += [(take, 0, 0, 0), (take, 0, 0, 0xFFFFFFFF)]
        raw = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
        room = ctypes.create_string_buffer(raw, len(raw))
        self.socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(room))
        )


def _parse(raw: bytes) -> Event | None:
    if len(raw) < _EVENT_AT + 16 + 8:
        return None
    kind = struct.unpack_from("=I", raw, _EVENT_AT)[0]
    numbers = struct.unpack_from("=4I", raw.ljust(_EVENT_AT + 32, b"\0"), _EVENT_AT + 16)
    if kind == FORK:
        _thread, parent, child_thread, child = numbers
        return Event(FORK, parent, child=child) if child_thread == child else None
    thread, pid, status, _signal = numbers
    if kind == EXEC:
        return Event(EXEC, pid)
    return Event(EXIT, pid, status=status) if kind == EXIT and thread == pid else None


def _silent(why: str) -> LivepatchError:
    return LivepatchError(
        "not_permitted",
        "the kernel does not tell this process of others that begin (CN_PROC): %s" % why,
        "Run the service on the host itself, as root of the initial user, PID and network namespaces; in a container, "
        "only what starts through the launcher is patched as it starts.",
    )
