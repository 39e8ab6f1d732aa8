# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""How a fleet is reached: its SSH keys, the ssh into its network, Ansible's inventory and settings."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .files import CHECKOUT, Layer
from .state import Host

SSHD = """\
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class Keys:
    """The keys of one fleet: what its hosts show (private), and whom they let in (public)."""

    host_private: str
    host_public: str
    user_public: str


def make_keys(place: Path) -> Keys:
    """Make the fleet's keys; the user's private one stays in PLACE/key."""
    for name in ("host_key", "key"):
        command = [
            "ssh-keygen",
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            f"testbed {place.name}",
            "-f",
            str(place / name),
        ]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return Keys(*((place / name).read_text(encoding="ascii") for name in ("host_key", "host_key.pub", "key.pub")))


def admit(layer: Layer, keys: Keys) -> None:
    """Configure the host's SSH server for these keys."""
    layer.write("/etc/ssh/sshd_config", SSHD)
    layer.write("/etc/ssh/host_key", keys.host_private, 0o600)
    layer.write("/etc/ssh/authorized_keys", keys.user_public)


def write(place: Path, keeper: int, hosts: list[Host]) -> None:
    """Write, into PLACE, all that ssh and Ansible need to reach HOSTS from anywhere on this machine."""
    host_key = " ".join((place / "host_key.pub").read_text(encoding="ascii").split()[:2])
    (place / "known_hosts").write_text(f"* {host_key}\n", encoding="ascii")
    blocks = [f"Host {host.name}\n    HostName {host.address}\n" for host in hosts]
    blocks.append(
        f"Host *\n    User root\n    IdentityFile {place}/key\n    IdentitiesOnly yes\n    BatchMode yes\n"
        f"    UserKnownHostsFile {place}/known_hosts\n    GlobalKnownHostsFile /dev/null\n"
        "    StrictHostKeyChecking yes\n    LogLevel ERROR\n"
    )
    (place / "ssh_config").write_text("".join(blocks), encoding="ascii")
    inside = f"exec nsenter --net=/proc/{keeper}/ns/net"
    _script(place / "ssh", f'{inside} ssh -F {place}/ssh_config "$@"')
    _script(place / "sftp", f'exec sftp -S {place}/ssh "$@"')
    _script(place / "scp", f'exec scp -S {place}/ssh "$@"')
    (place / "inventory.yml").write_text(_inventory(hosts), encoding="ascii")
    (place / "ansible.cfg").write_text(_settings(place), encoding="utf-8")


def environment(place: Path) -> dict[str, str]:
    """The variables with which Ansible's commands use the fleet in PLACE, and no settings of the user's."""
    path = f"{CHECKOUT}/.venv/bin:{os.environ.get('PATH', os.defpath)}"
    return {
        "PATH": path,
        "ANSIBLE_CONFIG": str(place / "ansible.cfg"),
        "ANSIBLE_HOME": str(place / "ansible"),
    }


def _inventory(hosts: list[Host]) -> str:
    lines = ["---", "fleet:", "  hosts:"]
    for host in hosts:
        lines += [f"    {host.name}:", f"      ansible_host: {host.address}"]
    lines += ["  vars:", "    ansible_user: root", "    ansible_python_interpreter: /usr/bin/python3"]
    return "\n".join(lines) + "\n"


def _settings(place: Path) -> str:
    command = [str(CHECKOUT / "tools" / "collection-path")]
    collections = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return f"""\
[defaults]
home = {place}/ansible
inventory = {place}/inventory.yml
collections_path = {collections}
forks = 20
retry_files_enabled = false
localhost_warning = false

[ssh_connection]
ssh_executable = {place}/ssh
sftp_executable = {place}/sftp
scp_executable = {place}/scp
ssh_args = -o ControlMaster=auto -o ControlPersist=30s
control_path_dir = {place}/connections
pipelining = true
"""


def _script(path: Path, command: str) -> None:
    path.write_text(
        f"#!/bin/sh\n# {shlex.quote(path.name)} inside the test bed's network\n{command}\n", encoding="utf-8"
    )
    path.chmod(0o755)
