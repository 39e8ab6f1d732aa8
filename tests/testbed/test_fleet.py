# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The test bed does what the tests on it rely on, and leaves nothing behind. Needs root."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed import Fleet, TestbedError, state

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def three() -> Iterator[Fleet]:
    """A fleet of three hosts."""
    with Fleet(hosts=3) as made:
        yield made


def _running(pid: int) -> bool:
    """Whether PID is there and more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait_until_gone(pids: list[int], place: Path | None = None) -> None:
    deadline = time.monotonic() + 10
    while any(_running(pid) for pid in pids) or (place is not None and place.exists()):
        assert time.monotonic() < deadline, f"still there after 10 s: {[p for p in pids if _running(p)]}, {place}"
        time.sleep(0.02)


def _machine() -> tuple[str, str]:
    """This machine's mounts and network interfaces."""
    links = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout
    return Path("/proc/self/mounts").read_text(), links


def test_a_host_has_its_own_name_processes_and_network(three: Fleet) -> None:
    script = "hostname; cat /etc/hostname; ls -d /proc/[0-9]* | wc -l; ip -o -4 address show dev eth0"
    said = three.exec("node2", ["sh", "-c", script], check=True).stdout.splitlines()
    assert said[:2] == ["node2", "node2"]
    assert int(said[2]) < 10  # its shells, its sshd, this command
    assert three.host("node2").address in said[3]


def test_a_host_writes_only_to_its_own_files(three: Fleet) -> None:
    for path in ("/srv/left-here", "/etc/left-here", "/usr/left-here"):
        three.exec("node1", ["sh", "-c", f"echo it >{path}"], check=True)
        assert three.path("node1", path).read_text() == "it\n"
        assert not three.path("node2", path).exists()
        assert not Path(path).exists()


def test_a_host_does_not_see_this_machines_own_things(three: Fleet, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    tree = TESTS.parent
    for place in (Path("/root"), Path("/home"), Path("/tmp"), tree):
        # Of the way to this tree, itself hidden, a host sees the names.
        way = [tree.relative_to(place).parts[0]] if place in tree.parents else []
        assert three.exec("node3", ["ls", "-A", str(place)]).stdout.split() == way


def test_a_host_traces_another_users_process(three: Fleet) -> None:
    script = (
        "setpriv --reuid nobody --regid nogroup --clear-groups sleep 60 & sleep 0.2;"
        "python3 -c 'import os, sys, ptrace.binding as b; pid = int(sys.argv[1]);"
        'b.ptrace_attach(pid); os.waitpid(pid, 0); b.ptrace_detach(pid); print("traced")\' $!; kill $!'
    )
    done = three.exec("node1", ["sh", "-c", script])
    assert (done.stdout, done.stderr) == ("traced\n", "")


def test_the_first_process_reaps_orphans(three: Fleet) -> None:
    three.exec("node1", ["sh", "-c", "(sleep 0.1 &)"], check=True)
    time.sleep(0.3)
    states = three.exec("node1", ["ps", "-eo", "stat,comm", "--no-headers"], check=True).stdout
    assert not [line for line in states.splitlines() if line.startswith("Z")]


@pytest.mark.parametrize("transfer", ["sftp", "scp", "piped"])
def test_ansible_reaches_every_host_over_ssh(three: Fleet, tmp_path: Path, transfer: str) -> None:
    (tmp_path / "content").write_text(transfer)
    environment = {**three.environment(), "ANSIBLE_SSH_TRANSFER_METHOD": transfer, "ANSIBLE_PIPELINING": "0"}
    arguments = f"src={tmp_path}/content dest=/srv/sent-by-{transfer}"
    # Not through fleet.run: Ansible is used from outside the fleet's network, too.
    command = ["ansible", "all", "-m", "ansible.builtin.copy", "-a", arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    for host in three.hosts:
        assert three.path(host.name, f"/srv/sent-by-{transfer}").read_text() == transfer
        assert f"{host.name} | CHANGED" in done.stdout


def test_ansible_finds_the_collection_and_keeps_out_of_the_users_home(three: Fleet) -> None:
    done = three.run(["ansible-galaxy", "collection", "list", "cgl.livepatch"], capture_output=True)
    assert "cgl.livepatch 0." in done.stdout, done.stderr
    settings = three.run(["ansible-config", "dump", "--only-changed"], capture_output=True, check=True).stdout
    assert f"{three.place}/ansible" in settings


def test_two_fleets_are_up_at_once_with_the_same_addresses(three: Fleet) -> None:
    with Fleet(hosts=1) as other:
        assert other.hosts[0].address == three.hosts[0].address
        other.exec("node1", ["touch", "/srv/other"], check=True)
        assert not three.path("node1", "/srv/other").exists()
        assert {three.name, other.name} <= set(state.names())
    assert three.exec("node1", ["hostname"]).stdout == "node1\n"


def test_nothing_is_left_behind() -> None:
    before = _machine()
    with Fleet(hosts=2) as made:
        client = subprocess.Popen(made.run_command(["sleep", "60"]))
        pids = [host.pid for host in made.hosts]
        subprocess.run([made.place / "ssh", "-fNM", "-S", made.place / "master", "node1"], check=True)
        assert _machine() == before
    _wait_until_gone([client.pid, *pids])
    client.wait()
    assert not made.place.exists()
    assert _machine() == before


def test_who_is_being_started_meanwhile_goes_too_and_leaves_no_file() -> None:
    # A chain: each makes a file, starts the next and ends, so that a single look at all processes misses it often.
    program = (
        "import contextlib, os, sys, time\nend = time.monotonic() + 15\n"
        "while time.monotonic() < end:\n"
        "    with contextlib.suppress(OSError): open(f'{sys.argv[1]}/file-{os.getpid()}', 'w').close()\n"
        "    time.sleep(0.0005)\n"
        "    if os.fork(): os._exit(0)\n"
    )
    with Fleet(hosts=1) as made:
        for _index in range(12):
            subprocess.run(made.run_command([sys.executable, "-c", program, str(made.place)]), check=True)
        keeper, _hosts = state.read(made.place)
        os.kill(keeper, signal.SIGTERM)  # not made.stop(), which removes the folder once more
        _wait_until_gone([keeper], made.place)
        running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _running(int(path.parts[2]))]
    assert not [command for command in running if os.fsencode(made.place) in command]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_fleet_goes_with_its_owner(number: signal.Signals) -> None:
    # A program started in the background by a shell ignores SIGINT, and so do those that it starts.
    program = (
        "import signal, time, testbed\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with testbed.Fleet(2) as f: print(f.name, flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    owner = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    assert owner.stdout is not None
    place = state.folder(owner.stdout.readline().strip())
    keeper, hosts = state.read(place)
    owner.send_signal(number)
    owner.wait(10)
    owner.stdout.close()
    _wait_until_gone([keeper, *(host.pid for host in hosts)], place)


def test_what_a_killed_keeper_left_is_recognised_and_removed() -> None:
    made = Fleet(hosts=2, detached=True).start()
    keeper, hosts = state.read(made.place)
    os.kill(keeper, signal.SIGKILL)
    assert made._process is not None
    made._process.wait(10)
    _wait_until_gone([host.pid for host in hosts])
    assert made.place.exists()
    with pytest.raises(TestbedError, match="is up"):
        Fleet.running(made.name)
    assert made.name in state.remove_leftovers()
    assert not made.place.exists()
    made.stop()


def test_a_root_that_may_not_mount_is_told_so_and_nothing_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Fleet(hosts=2, name=f"broken-{os.getpid()}")
    real = subprocess.Popen

    def confined(command: list[str], **options: Any) -> subprocess.Popen[str]:
        return real(["setpriv", "--bounding-set", "-sys_admin", *command], **options)

    monkeypatch.setattr(subprocess, "Popen", confined)
    with pytest.raises(TestbedError, match="unshare"):
        made.start()
    assert not made.place.exists()


def test_only_root_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(TestbedError, match="run it as root"):
        Fleet(hosts=1).start()


def test_the_command_line() -> None:
    name = f"by-hand-{os.getpid()}"

    def say(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(TESTS / "fleet"), "--name", name, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    try:
        assert "2 hosts up" in say("up", "2").stdout
        again = say("up", "2")
        assert again.returncode == 1
        assert "is up. Take it down first" in again.stderr
        assert f"{name}: node1 to node2" in say("list").stdout
        assert say("exec", "node2", "hostname").stdout == "node2\n"
        assert say("run", "sh", "-c", "exit 7").returncode == 7
        assert "ANSIBLE_CONFIG=" in say("env").stdout
    finally:
        down = say("down")
    assert down.stdout.endswith(f"{name}: down\n")
    assert name not in say("list").stdout
    assert "No fleet called" in say("down").stderr
