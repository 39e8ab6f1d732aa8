# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The demonstration is true and leaves nothing behind, run to its end, interrupted or killed. Needs root."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo import steps
from testbed import state

ROOT = Path(__file__).parents[1]
HOSTS = ["node1", "node2", "node3"]


@dataclass
class Run:
    """A demonstration that was started: its lines, its status (None while it runs), and how long it took, seconds."""

    process: subprocess.Popen[str]
    lines: list[str]
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """The name of its fleet."""
        return f"demo-{self.process.pid}"

    def read(self, until: str = "$.") -> bool:
        """Read on until a line matches; False when there was none up to the end."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if re.search(until, line):
                return True
        self.process.wait(30)
        return False


def start() -> Run:
    """A demonstration without a terminal, in a session of its own."""
    process = subprocess.Popen(
        [str(ROOT / "demo" / "run")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    return Run(process, [])


def machine() -> tuple[str, str]:
    """This machine's mounts and network interfaces."""
    links = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout
    return Path("/proc/self/mounts").read_text(), links


def processes_of(run: Run) -> list[str]:
    """Command lines of what belongs to it: all that bears its name, and all in the session it began."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            condition, _parent, _group, session = (
                (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:4]
            )
        except OSError:
            continue
        if condition == "Z":  # dead already; the first process of this machine has yet to collect it
            continue
        if run.name in command or (int(session) == run.process.pid and int(folder.name) != run.process.pid):
            found.append(command)
    return found


def namespaces_of_servers() -> set[str]:
    """The PID namespaces in which a desk server runs."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(folder / "exe") == "/usr/local/bin/desk":
                found.add(os.readlink(folder / "ns" / "pid"))
        except OSError:
            continue
    return found


def assert_nothing_is_left(run: Run, before: tuple[str, str], servers: set[str], seconds: float = 0.0) -> None:
    """No process, mount, interface or fleet of it is there any more, at the latest after so many SECONDS."""
    deadline = time.monotonic() + seconds
    while (processes_of(run) or run.name in state.names()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(run) == []
    assert namespaces_of_servers() <= servers
    assert run.name not in state.names()
    assert not state.folder(run.name).exists()
    assert machine() == before


@pytest.fixture(scope="module")
def whole() -> Iterator[Run]:
    """The demonstration, run to its end."""
    before, servers = machine(), namespaces_of_servers()
    begin = time.monotonic()
    run = start()
    run.read()
    run.seconds = time.monotonic() - begin
    yield run
    assert_nothing_is_left(run, before, servers)


def row(run: Run, pattern: str) -> list[dict[str, str]]:
    """The rows of the table whose header matches, by the names of its columns."""
    number = next(n for n, line in enumerate(run.lines) if re.search(pattern, line))
    header, dashes = run.lines[number], run.lines[number + 1]
    spans = [match.span() for match in re.finditer("-+", dashes)]
    rows = []
    for line in run.lines[number + 2 :]:
        if len(line) < spans[-1][0]:
            break
        rows.append({header[a:b].strip(): line[a:b].strip() for a, b in spans})
        if len(rows) == 3 * len(HOSTS):
            break
    return rows


def test_it_ends_well_within_three_minutes(whole: Run) -> None:
    assert whole.process.returncode == 0, "\n".join(whole.lines)
    assert whole.seconds < 180


def test_all_that_it_claims_is_true(whole: Run) -> None:
    said = [line.strip() for line in whole.lines]
    assert len([line for line in said if line.startswith("true ")]) == 9
    assert not [line for line in said if line.startswith("FALSE")]
    assert "48 of 48 connections open from first to last, 0 lost" in "\n".join(said)


def test_the_answers_change_host_by_host_and_back(whole: Run) -> None:
    changes = [m.groups() for m in (re.search(r"(node\d) gives (\w+) answers: (.*)", x) for x in whole.lines) if m]
    assert [(host, kind) for host, kind, _answer in changes] == [
        *((host, "new") for host in HOSTS),
        *((host, "old") for host in reversed(HOSTS)),
    ]
    for _host, kind, answer in changes:
        assert ("****" in answer) == (kind == "new")


def test_the_patch_adds_a_function(whole: Run) -> None:
    assert any(re.search(r"replaces answer_question \(\d+ bytes, now \d+\); adds hide$", x) for x in whole.lines)


def test_the_table_of_processes(whole: Run) -> None:
    rows = row(whole, "process +patch +state")[: len(HOSTS)]
    assert [one["host"] for one in rows] == HOSTS
    assert {(one["patch"], one["state"], one["verified"], one["threads"]) for one in rows} == {
        (f"{steps.PATCH} 1", "active", "yes", "9")
    }
    # The last host was told to stop its threads, so it says for how long.
    assert rows[-1]["switch"] == "stop"
    assert 0 < int(rows[-1]["stop us"]) < 100_000
    assert all(int(one["stop us"]) == 0 for one in rows if one["switch"] == "byte")
    assert all(int(one["held us"]) > 0 for one in rows)


def test_the_table_of_clients(whole: Run) -> None:
    rows = row(whole, "while +open +lost")
    assert [one["host"] for one in rows if one["host"]] == HOSTS
    assert [one["while"] for one in rows] == ["before", "going in", "going out"] * len(HOSTS)
    for one in rows:
        assert (one["open"], one["lost"], one["wrong"]) == (str(steps.CONNECTIONS), "0", "0")
        assert int(one["answers"]) > 100
        assert 0 < float(one["p50 ms"]) <= float(one["p99 ms"]) <= float(one["worst ms"]) + 0.1


def test_no_escape_sequences_without_a_terminal(whole: Run) -> None:
    assert "\x1b" not in "".join(whole.lines)


def send(number: signal.Signals, to: Callable[[int, int], None]) -> Callable[[Run], None]:
    """Something that sends a signal to the demonstration."""
    return lambda run: to(run.process.pid, number)


@pytest.mark.parametrize(
    ("moment", "act", "status"),
    [
        ("Three hosts come up", send(signal.SIGINT, os.killpg), 128 + signal.SIGINT),
        ("livepatch_build makes", send(signal.SIGTERM, os.kill), 128 + signal.SIGTERM),
        ("node1 gives new answers", send(signal.SIGINT, os.killpg), 128 + signal.SIGINT),
    ],
)
def test_interrupted_it_leaves_nothing(moment: str, act: Callable[[Run], None], status: int) -> None:
    before, servers = machine(), namespaces_of_servers()
    run = start()
    assert run.read(moment), "\n".join(run.lines)
    act(run)
    run.read()
    assert run.process.returncode == status
    assert "everything is taken down" in run.lines[-1]
    assert_nothing_is_left(run, before, servers)
    assert not (steps.BUILD / "demo" / run.name).exists()


def test_killed_it_leaves_files_only_which_the_next_one_removes() -> None:
    before, servers = machine(), namespaces_of_servers()
    run = start()
    assert run.read("livepatch_build makes"), "\n".join(run.lines)
    run.process.kill()
    run.process.wait(10)
    assert_nothing_is_left(run, before, servers, seconds=20)
    place = steps.BUILD / "demo" / run.name
    assert place.exists()
    after = start()
    assert after.read("The server is compiled")
    deadline = time.monotonic() + 10
    while place.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not place.exists()
    after.process.terminate()
    after.read()
    assert_nothing_is_left(after, before, servers)


def test_a_server_that_dies_makes_it_fail() -> None:
    run = start()
    assert run.read("node1 gives new answers"), "\n".join(run.lines)
    kill = [str(ROOT / "tests" / "fleet"), "--name", run.name, "exec", "node3", "pkill", "-9", "desk"]
    subprocess.run(kill, check=True)
    run.read()
    assert run.process.returncode == 1
    assert any("It did not work" in line for line in run.lines)
    assert not [line for line in run.lines if "All of it is true" in line]
