# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The keeper: one process that holds a fleet, started in a network and a mount namespace of its own.

    python3 -m testbed.keeper FOLDER HOSTS owned|detached

It says "ready" (or "failed: WHY") on standard output. It takes the fleet down at SIGTERM and, when it is
owned, at the end of its standard input: the owner is gone then.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from . import access, state
from .files import Layer

CONTROLLER_ADDRESS = "198.18.0.1"  # 198.18.0.0/15 is for test beds (RFC 2544), and this network has no way out
PREFIX_LENGTH = 16
START_SECONDS = 60.0
END_SECONDS = 10.0
YOUNGEST = 50  # so many are looked at in less time than it takes to start one

_INIT = Path(__file__).with_name("host-init")
_libc = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2


def address(number: int) -> str:
    """The address of the NUMBERth host (from 1)."""
    return f"198.18.{1 + (number - 1) // 250}.{1 + (number - 1) % 250}"


class Keeper:
    """Starts the hosts of the fleet in PLACE, and ends them."""

    def __init__(self, place: Path, count: int) -> None:
        self.place = place
        self.memory = place / "hosts"
        self.names = [f"node{number}" for number in range(1, count + 1)]
        self.addresses = [address(number) for number in range(1, count + 1)]
        self.processes: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        """Bring all hosts up; when this returns, their SSH servers answer."""
        self.memory.mkdir()
        _run("mount", "-t", "tmpfs", "-o", "mode=0755", "livepatch-testbed", str(self.memory))
        keys = access.make_keys(self.place)
        known = [(CONTROLLER_ADDRESS, "controller"), *zip(self.addresses, self.names)]
        table = "127.0.0.1 localhost\n" + "".join(f"{ip} {name}\n" for ip, name in known)
        for name in self.names:
            self._begin(name, keys, table)
        for name, process in zip(self.names, self.processes):
            assert process.stdout is not None
            if process.stdout.readline() != "born\n":
                raise state.TestbedError(f"{name} did not start: {self._last_words(name)}")
        self._connect()
        first = _first_processes([process.pid for process in self.processes])
        hosts = [state.Host(*host) for host in zip(self.names, self.addresses, first)]
        access.write(self.place, os.getpid(), hosts)
        self._wait_for_servers()
        state.write(self.place, os.getpid(), hosts)

    def stop(self) -> None:
        """End every process of the fleet and remove its files."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        _libc.umount2(os.fsencode(self.memory), _MNT_DETACH)
        # Its name first: who would make files by it, faster than they are removed, finds no place for them.
        gone = self.place.with_name(f".{self.place.name}")
        with contextlib.suppress(OSError):
            self.place.rename(gone)
        # Who was being started during one look is seen by the next, and may have made files until then.
        deadline = time.monotonic() + END_SECONDS
        while (_end_all_in_this_network() or self.place.exists() or gone.exists()) and time.monotonic() < deadline:
            for folder in (self.place, gone):
                shutil.rmtree(folder, ignore_errors=True)

    def _begin(self, name: str, keys: access.Keys, table: str) -> None:
        layer = Layer(self.memory / name)
        layer.write("/etc/hostname", f"{name}\n")
        layer.write("/etc/hosts", table)
        access.admit(layer, keys)
        root = self.memory / name / "root"
        root.mkdir()
        unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc"]
        with (self.place / f"{name}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen(
                    # A host ends with its keeper, however that ends.
                    [
                        "setpriv",
                        "--pdeathsig",
                        "KILL",
                        *unshare,
                        str(_INIT),
                        name,
                        str(root),
                        *layer.mounts(),
                    ],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env={
                        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                        "LANG": "C.UTF-8",
                    },
                    start_new_session=True,
                )
            )

    def _connect(self) -> None:
        """A bridge in this namespace, a pair of interfaces to each host; then tell each host its address."""
        lines = ["link set lo up", "link add bridge type bridge", "link set bridge up"]
        lines.append(f"address add {CONTROLLER_ADDRESS}/{PREFIX_LENGTH} dev bridge")
        for number, process in enumerate(self.processes, 1):
            lines.append(f"link add port{number} type veth peer name eth0 netns {process.pid}")
            lines.append(f"link set port{number} master bridge up")
        _run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")
        for host, process in zip(self.addresses, self.processes):
            assert process.stdin is not None
            process.stdin.write(f"{host}/{PREFIX_LENGTH}\n")
            process.stdin.close()

    def _wait_for_servers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        for name, host, process in zip(self.names, self.addresses, self.processes):
            while True:
                try:
                    socket.create_connection((host, 22), timeout=1.0).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise state.TestbedError(f"{name} has no SSH server: {self._last_words(name)}") from None
                time.sleep(0.02)

    def _last_words(self, name: str) -> str:
        return (self.place / f"{name}.log").read_text(errors="replace")[-500:].strip() or "(it said nothing)"


def _end_all_in_this_network() -> bool:
    """Kill whoever else is here, started for the fleet (shared connections, clients); whether there was anybody."""
    here = os.readlink("/proc/self/ns/net")
    found = False
    for pid in _youngest_first():
        try:
            if pid != os.getpid() and os.readlink(f"/proc/{pid}/ns/net") == here:
                os.kill(pid, signal.SIGKILL)
                found = True
        except OSError:
            continue  # gone meanwhile, or a process of whoever confines this machine: none of ours
    return found


def _youngest_first() -> Iterator[int]:
    """The numbers that processes were given last, in use or not, and then those of all.

    Who starts another and ends, time and again, is gone by the time that all processes are listed, always.
    """
    last = int(Path("/proc/loadavg").read_text().split()[4])
    yield from range(last, max(last - YOUNGEST, 0), -1)
    yield from map(int, filter(str.isdigit, os.listdir("/proc")))


def _run(*command: str, stdin: str = "") -> None:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise state.TestbedError(f"{' '.join(command)} failed: {done.stderr.strip()}")


def _first_processes(parents: list[int]) -> list[int]:
    """The one child of each of PARENTS (unshare's, the first process in its namespace)."""
    children: dict[int, int] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        children[int(after_name.split()[1])] = int(pid)
    return [children[parent] for parent in parents]


def main() -> int:
    """Hold the fleet until its owner is gone or SIGTERM comes."""
    place, count, owned = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "owned"
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    keeper = Keeper(place, count)
    try:
        try:
            keeper.start()
        except (state.TestbedError, OSError, subprocess.SubprocessError) as error:
            print(f"failed: {error}", flush=True)
            return 1
        print("ready", flush=True)
        sys.stdout.close()
        select.select([sys.stdin, woken] if owned else [woken], [], [])
    finally:
        keeper.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
