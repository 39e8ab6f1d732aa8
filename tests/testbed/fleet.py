# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A fleet as its user holds it: start it, run things in it, stop it."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from . import access, state
from .state import Host, TestbedError

_TOOLS = {
    "ip": "iproute2",
    "mount": "mount",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "unshare": "util-linux",
}
_START_SECONDS = 120.0
_STOP_SECONDS = 20.0


class Fleet:
    """Some hosts on a network of their own; as a context manager they are up inside it and gone behind it.

    They also go when the process that made them dies, unless it said detached=True: then stop() has to.
    """

    def __init__(self, hosts: int = 3, name: str | None = None, detached: bool = False) -> None:
        self.count = hosts
        self.name = name or f"fleet-{secrets.token_hex(4)}"
        self.detached = detached
        self.place = state.folder(self.name)
        self.hosts: tuple[Host, ...] = ()
        self._keeper = 0
        self._process: subprocess.Popen[str] | None = None

    @classmethod
    def running(cls, name: str) -> Fleet:
        """The fleet called NAME, which somebody started before. Raises TestbedError when it is not up."""
        fleet = cls(name=name, detached=True)
        fleet._keeper, fleet.hosts = state.read(fleet.place)
        fleet.count = len(fleet.hosts)
        return fleet

    def start(self) -> Fleet:
        """Bring the hosts up, with SSH servers that answer. Leaves nothing when it raises TestbedError."""
        _check_means()
        if not 1 <= self.count <= 10_000:
            raise TestbedError(f"A fleet has 1 to 10000 hosts, not {self.count}.")
        _place, lock = state.create(self.name)
        try:
            self._launch(lock)
            self._keeper, self.hosts = state.read(self.place)
        except BaseException:
            self.stop()
            raise
        finally:
            os.close(lock)
        return self

    def stop(self) -> None:
        """Take the hosts down and remove all that belongs to them; harmless when they are down."""
        if self._process is not None:
            _end(self._process.pid, lambda: self._process is None or self._process.poll() is not None)
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None
        elif self._keeper and state.alive(self.place):
            _end(self._keeper, lambda: not state.alive(self.place))
        shutil.rmtree(self.place, ignore_errors=True)
        self.hosts = ()

    def __enter__(self) -> Fleet:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def environment(self) -> dict[str, str]:
        """This process's environment, with what makes Ansible's commands use this fleet."""
        return {**os.environ, **access.environment(self.place)}

    def run_command(self, command: Sequence[str]) -> list[str]:
        """COMMAND made to run in the fleet's network, on the controller's side, with this machine's files."""
        return ["nsenter", f"--net=/proc/{self._keeper}/ns/net", "--", *command]

    def exec_command(self, host: str, command: Sequence[str]) -> list[str]:
        """COMMAND made to run on HOST: its files, processes and network."""
        return ["nsenter", f"--target={self.host(host).pid}", "--all", "--wdns=/root", "--", *command]

    def run(self, command: Sequence[str], check: bool = False, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run COMMAND (ansible-playbook, a client) on the controller's side; OPTIONS are subprocess.run's."""
        options = {"text": True, "env": self.environment(), **options}
        return subprocess.run(self.run_command(command), check=check, **options)

    def exec(
        self, host: str, command: Sequence[str], check: bool = False, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run COMMAND on HOST, past SSH, and hand back what it said; OPTIONS are subprocess.run's."""
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        clean = {"PATH": path, "HOME": "/root", "LANG": "C.UTF-8", "TERM": os.environ.get("TERM", "dumb")}
        if not {"stdout", "stderr", "capture_output"} & options.keys():
            options["capture_output"] = True
        options = {"text": True, "env": clean, **options}
        return subprocess.run(self.exec_command(host, command), check=check, **options)

    def path(self, host: str, path: str) -> Path:
        """A file of HOST as this machine can open it."""
        return Path(f"/proc/{self.host(host).pid}/root/{path.lstrip('/')}")

    def host(self, name: str) -> Host:
        """The host called NAME."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise TestbedError(f"No host {name} in {self.name}; there are {', '.join(h.name for h in self.hosts)}.")

    def _launch(self, lock: int) -> None:
        inside = ["unshare", "--net", "--mount", "--propagation", "slave"]
        bond = "detached" if self.detached else "owned"
        keeper = [sys.executable, "-m", "testbed.keeper", str(self.place), str(self.count), bond]
        with (self.place / "keeper.log").open("w+", errors="replace") as log:
            self._process = subprocess.Popen(
                [*inside, *keeper],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                pass_fds=(lock,),
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
                start_new_session=True,  # Ctrl-C is for the owner, who then stops the fleet in order
            )
            assert self._process.stdout is not None
            said, silent = "", f"no answer in {_START_SECONDS:.0f} s"
            if select.select([self._process.stdout], [], [], _START_SECONDS)[0]:
                silent = "its keeper ended without a word"
                said = self._process.stdout.readline().strip()
            if said != "ready":
                log.seek(0)
                why = said or log.read()[-2000:] or silent
                raise TestbedError(f"The test bed did not come up: {why}")


def _check_means() -> None:
    if os.geteuid() != 0:
        raise TestbedError("The test bed makes network and mount namespaces, which only root may: run it as root.")
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool, path=path) is None})
    if missing:
        raise TestbedError(f"The test bed needs these packages, please install them: {' '.join(missing)}")


def _end(pid: int, gone: Any) -> None:
    """Ask the keeper PID to take its fleet down; when it does not, the kernel does."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline:
            if gone():
                return
            time.sleep(0.01)
