# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The greeter of the integration tests on the hosts of a fleet, and the playbooks of the collection over them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from testbed import Fleet

GREETER = Path(__file__).parents[1] / "integration" / "targets" / "setup_greeter" / "files"
OLD, NEW = "Helo world", "Hello world"


class Greeters:
    """The greeter on every host of a fleet, and the playbooks that are run over them."""

    def __init__(self, fleet: Fleet, work: Path) -> None:
        self.fleet = fleet
        self.names = [host.name for host in fleet.hosts]
        self.patch = work / "fix-greeting.lpatch"
        self._work = work
        self._pids: dict[str, int] = {}

    def build(self, **more: Any) -> None:
        """Compile the greeter for the hosts, stripped, and build its patch, as users do; `more` variables for that."""
        shutil.copytree(GREETER / "greeter", self._work / "deployed")
        subprocess.run(["make", "-s", "-C", self._work / "deployed", "greeter"], check=True)
        subprocess.run(["strip", self._work / "deployed" / "greeter"], check=True)
        variables = {
            "livepatch_name": "fix-greeting",
            "livepatch_cves": ["CVE-2026-0001"],
            "livepatch_source": str(GREETER / "greeter"),
            "livepatch_diff": [str(GREETER / "greeting.diff")],
            "livepatch_build_command": "make",
            "livepatch_artifact": "greeter",
            "livepatch_target": str(self._work / "deployed" / "greeter"),
            "livepatch_build_dest": str(self._work / "built.lpatch"),
            "livepatch_dest": str(self.patch),
            **more,
        }
        self.play("build", 0, "--connection", "local", "--inventory", "localhost,", **variables)

    def start(self, host: str) -> None:
        """Start the greeter on a host; one that runs there is ended."""
        if host in self._pids:
            self.fleet.exec(host, ["kill", "-9", str(self._pids.pop(host))])
        else:
            shutil.copy(self._work / "deployed" / "greeter", self.fleet.path(host, "/srv/greeter"))
        script = "setsid /srv/greeter /srv/says 3 </dev/null >/dev/null 2>&1 & echo $!"
        self._pids[host] = int(self.fleet.exec(host, ["sh", "-c", script], check=True).stdout)

    def second(self, host: str) -> int:
        """Start another greeter on a host, beside the one; returns its process id."""
        script = "setsid /srv/greeter /srv/also 3 </dev/null >/dev/null 2>&1 & echo $!"
        return int(self.fleet.exec(host, ["sh", "-c", script], check=True).stdout)

    def vanish(self, host: str) -> None:
        """End a host, with all that runs on it, for good."""
        self.names.remove(host)
        os.kill(self.fleet.host(host).pid, signal.SIGKILL)

    def pid(self, host: str) -> int:
        """The greeter's process id on its host."""
        return self._pids[host]

    def says(self, host: str) -> str:
        """What the greeter of a host says now."""
        time.sleep(0.1)
        return self.fleet.path(host, "/srv/says").read_text()[:16].strip()

    def all_say(self) -> list[str]:
        """What each greeter says now."""
        return [self.says(host) for host in self.names]

    def mapped(self, host: str) -> bool:
        """Whether anything of a patch is in the greeter's memory."""
        return "livepatch:" in self.fleet.path(host, f"/proc/{self.pid(host)}/maps").read_text()

    def play(self, playbook: str, status: int, *words: str, **variables: Any) -> str:
        """What a playbook of the collection prints; it must end with `status`."""
        command = self.command(playbook, *words, **variables)
        done = self.fleet.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.environment())
        assert done.returncode == status, done.stdout
        return str(done.stdout)

    def command(self, playbook: str, *words: str, **variables: Any) -> list[str]:
        """The command that runs a playbook of the collection."""
        return ["ansible-playbook", f"cgl.livepatch.{playbook}", *words, "-e", json.dumps(variables)]

    def environment(self) -> dict[str, str]:
        """The environment for that."""
        return {
            **self.fleet.environment(),
            "CGL_LIVEPATCH_CACHE": str(self._work / "cache"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_SSH_RETRIES": "0",
            "ANSIBLE_TIMEOUT": "5",
        }
