# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The roles rollout and rollback over real SSH: waves, and what becomes of a wave that fails. Needs root."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_rollout.greeters import NEW, OLD, Greeters

WAVES = [1, 2, "100%"]
# Seizes a process, as a debugger does, and keeps it until its standard input ends.
TRACER = (
    "import ctypes, sys; pid = int(sys.argv[1]); libc = ctypes.CDLL(None);"
    "assert libc.ptrace(0x4206, pid, None, None) == 0; print('traced', flush=True); sys.stdin.read()"
)


@pytest.fixture(autouse=True)
def _as_found(greeters: Greeters) -> Iterator[None]:
    """Each test begins and ends with hosts on which nothing is patched."""
    assert greeters.all_say() == [OLD] * len(greeters.names)
    yield
    if any(greeters.mapped(host) for host in greeters.names):
        greeters.play("rollback", 0, "--limit", ",".join(greeters.names), livepatch_patch="fix-greeting")
    assert greeters.all_say() == [OLD] * len(greeters.names)
    assert not any(greeters.mapped(host) for host in greeters.names)


def _recap(output: str) -> dict[str, dict[str, int]]:
    """The counts of PLAY RECAP, by host."""
    lines = output.partition("PLAY RECAP")[2].splitlines()[1:]
    return {
        line.split(":")[0].strip(): {word: int(count) for word, count in re.findall(r"(\w+)=(\d+)", line)}
        for line in lines
        if ":" in line
    }


def test_it_goes_through_the_waves_and_back(greeters: Greeters) -> None:
    said = greeters.play("rollout", 0, livepatch_patch=str(greeters.patch), livepatch_waves=WAVES)
    assert greeters.all_say() == [NEW] * 4
    loads = said.split("Load the patch into the processes]")[1:]
    waves = [re.findall(r"changed: \[(node\d)\]", load.partition("TASK")[0]) for load in loads]
    assert [sorted(wave) for wave in waves] == [["node1"], ["node2", "node3"], ["node4"]]
    # load and activate on each host, and nothing more
    assert [counts["changed"] for counts in _recap(said).values()] == [2] * 4

    greeters.play("verify", 0, livepatch_patch="fix-greeting", livepatch_cves=["CVE-2026-0001"])
    again = greeters.play("rollout", 0, livepatch_patch=str(greeters.patch), livepatch_waves=WAVES)
    assert [counts["changed"] for counts in _recap(again).values()] == [0] * 4

    back = greeters.play("rollback", 0, livepatch_patch="fix-greeting")
    assert [counts["changed"] for counts in _recap(back).values()] == [2] * 4
    assert greeters.all_say() == [OLD] * 4
    unproven = greeters.play("verify", 2, livepatch_patch="fix-greeting")
    assert "fix-greeting is not applied here: no process has it" in unproven
    again = greeters.play("rollback", 0, livepatch_patch="fix-greeting")
    assert [counts["changed"] for counts in _recap(again).values()] == [0] * 4


def test_check_mode_predicts_and_touches_nothing(greeters: Greeters) -> None:
    said = greeters.play("rollout", 0, "--check", "--diff", livepatch_patch=str(greeters.patch))
    assert "-/srv/greeter (pid %d): absent" % greeters.pid("node2") in said
    assert "+/srv/greeter (pid %d): loaded" % greeters.pid("node2") in said
    assert [counts["changed"] for counts in _recap(said).values()] == [1] * 4
    assert greeters.all_say() == [OLD] * 4
    assert not any(greeters.mapped(host) for host in greeters.names)


def _assert_stopped(greeters: Greeters, said: str, reason: str, on_failure: str = "all") -> None:
    """The second wave (node2, node3) failed; where the patch is now follows from what was to be done about that."""
    assert re.search(reason, said), said
    expected = {"all": [OLD, OLD], "wave": [NEW, OLD], "hold": [NEW, NEW]}[on_failure]
    assert [greeters.says("node1"), greeters.says("node2")] == expected
    assert [greeters.mapped("node1"), greeters.mapped("node2")] == [word == NEW for word in expected]
    assert not greeters.mapped("node4")
    assert [counts["failed"] for counts in _recap(said).values()] == [1] * 4
    assert "node2: active in 1 process" in said if on_failure == "hold" else "node2: the patch is in no process" in said
    assert "node4: %s" % ("the patch is in no process" if on_failure == "all" else "not reached") in said


def test_a_host_that_cannot_load_stops_its_wave(greeters: Greeters) -> None:
    pid = str(greeters.pid("node3"))
    tracer = subprocess.Popen(
        greeters.fleet.exec_command("node3", ["/usr/bin/python3", "-c", TRACER, pid]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert tracer.stdin is not None
    assert tracer.stdout is not None
    try:
        assert tracer.stdout.readline() == "traced\n"
        said = greeters.play("rollout", 2, livepatch_patch=str(greeters.patch), livepatch_waves=WAVES)
    finally:
        tracer.stdin.close()
        tracer.wait(10)
        tracer.stdout.close()
    _assert_stopped(greeters, said, r"node3 failed to load it: 1 of 1 processes failed. pid \d+: .*traced")
    assert "node3: the patch is in no process" in said
    # In reverse order, wave by wave.
    assert _order(said, "Look what the processes have in them]")[::2] == ["node4", "node1"]
    # node2 had not been switched yet: no host begins a step before all have ended the one before it.
    assert said.count("changed: [node2]") == 2  # loaded and unloaded


@pytest.mark.long
def test_a_host_that_cannot_activate_stops_its_wave(greeters: Greeters, tmp_path: Path) -> None:
    # Every thread of that host's processes is to be stopped within a microsecond: that cannot be.
    limits = "{livepatch_consistency: atomic, livepatch_max_stop_ms: 0.001, livepatch_timeout: 1}"
    (tmp_path / "more.yml").write_text("fleet: {hosts: {node3: %s}}\n" % limits)
    inventories = ["-i", str(greeters.fleet.place / "inventory.yml"), "-i", str(tmp_path / "more.yml")]
    said = greeters.play("rollout", 2, *inventories, livepatch_on_failure="wave", **_usual(greeters))
    _assert_stopped(greeters, said, r"node3 failed to activate it: 1 of 1 processes failed", "wave")
    assert "changed: [node2]" in said.split("Switch the processes back]")[1].partition("TASK")[0]


def _usual(greeters: Greeters) -> dict[str, Any]:
    return {"livepatch_patch": str(greeters.patch), "livepatch_waves": WAVES}


def _order(said: str, task: str) -> list[str]:
    """The first host of each time that a task was carried out."""
    return [re.findall(r"\[(node\d)", part)[0] for part in said.split(task)[1:]]


def _soaking(greeters: Greeters, **more: Any) -> subprocess.Popen[str]:
    """A rollout that soaks for some seconds a wave, at the moment when the second wave is active."""
    variables = {**_usual(greeters), "livepatch_soak_seconds": 4, **more}
    command = greeters.fleet.run_command(greeters.command("rollout", **variables))
    running = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=greeters.environment(),
    )
    deadline = time.monotonic() + 60
    while greeters.says("node3") != NEW:
        if running.poll() is not None or time.monotonic() > deadline:
            running.kill()
            pytest.fail(f"the second wave was never active: {running.communicate()[0]}")
    time.sleep(1.5)  # for the first look at the facts
    return running


@pytest.mark.long
def test_a_process_restarted_while_its_wave_soaks_is_noticed_written_down_and_put_right(
    greeters: Greeters, tmp_path: Path
) -> None:
    record = tmp_path / "end.json"
    running = _soaking(greeters, livepatch_on_failure="hold", livepatch_record=str(record))
    greeters.start("node3")
    said = running.communicate(timeout=120)[0]
    assert running.returncode == 2, said
    _assert_stopped(greeters, said, "node3 failed to verify it: Patch fix-greeting is not active and verified", "hold")
    hosts = json.loads(record.read_text())["hosts"]
    assert {host: state["state"] for host, state in hosts.items()} == {
        "node1": "active",
        "node2": "active",
        "node3": "absent",
        "node4": "not reached",
    }
    assert [process["pid"] for process in hosts["node2"]["processes"]] == [greeters.pid("node2")]
    # Again: what the processes say decides, and the one that came back is brought to where the others are.
    again = greeters.play("rollout", 0, **_usual(greeters))
    assert [counts["changed"] for counts in _recap(again).values()] == [0, 0, 2, 2]
    assert greeters.all_say() == [NEW] * 4


def test_a_gate_that_fails_after_the_work_takes_the_patch_out_and_before_it_lets_none_in(greeters: Greeters) -> None:
    health = {"command": "grep -q Helo /srv/says"}  # healthy with the old code only
    said = greeters.play("rollout", 2, livepatch_health=health, **_usual(greeters))
    assert "node1 failed to be healthy after that: " in said
    assert greeters.all_say() == [OLD] * 4
    said = greeters.play("rollout", 2, livepatch_health={"port": 9}, **_usual(greeters))
    assert "node1 failed to be healthy before it was worked on: port 9 of 127.0.0.1 accepts no connection" in said
    assert "node1: not reached" in said


def test_some_may_fail_and_end_up_without_the_patch(greeters: Greeters, tmp_path: Path) -> None:
    gate = tmp_path / "gate.yml"
    gate.write_text(
        "- ansible.builtin.fail: {msg: it limps}\n  when: rollout_moment == 'after' and inventory_hostname == 'node3'\n"
    )
    variables = {**_usual(greeters), "livepatch_health_tasks": str(gate), "livepatch_max_fail_percentage": 50}
    said = greeters.play("rollout", 2, **variables)
    assert greeters.all_say() == [NEW, NEW, OLD, NEW]
    assert [counts["failed"] for counts in _recap(said).values()] == [0, 0, 1, 0]
    assert "node3: the patch is in no process. node3 failed to be healthy after that: it limps" in said


def test_a_patch_that_is_no_patch_touches_no_host(greeters: Greeters, tmp_path: Path) -> None:
    (tmp_path / "torn.lpatch").write_bytes(greeters.patch.read_bytes()[:700])
    said = greeters.play("rollout", 2, livepatch_patch=str(tmp_path / "torn.lpatch"), livepatch_waves=WAVES)
    assert "node1 failed to load it: " in said
    assert "node1: unknown" in said
    assert "node2: not reached" in said


def test_the_role_prepare_finds_the_hosts_ready_or_says_why_not(greeters: Greeters) -> None:
    said = greeters.play("prepare", 0)
    assert [counts["changed"] for counts in _recap(said).values()] == [0] * 4
    # Without the library, and with nobody allowed to install it.
    bare = greeters.fleet.path("node1", "/srv/bare")
    bare.mkdir()
    greeters.fleet.exec("node1", ["/usr/bin/python3", "-m", "venv", "--without-pip", "/srv/bare"], check=True)
    words = ["--limit", "node1", "-e", "ansible_python_interpreter=/srv/bare/bin/python"]
    said = greeters.play("prepare", 2, *words, prepare_install="none")
    assert "/srv/bare/bin/python cannot import python-ptrace and pyelftools" in said
    # As a user who may not trace.
    proof = Path(__file__).parents[2] / "roles" / "prepare" / "files" / "prove_tracing.py"
    nobody = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--bounding-set", "-all"]
    done = subprocess.run(
        [*nobody, sys.executable, "-"], input=proof.read_text(), capture_output=True, text=True, check=False
    )
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    if scope.exists() and scope.read_text().strip() != "0":
        assert "kernel.yama.ptrace_scope" in done.stdout
        assert done.returncode == 1
    else:
        assert (done.returncode, done.stdout) == (0, "")


# Last, because the host is gone after it.
@pytest.mark.long
def test_a_host_that_vanishes_while_its_wave_soaks_stops_the_wave(greeters: Greeters) -> None:
    running = _soaking(greeters)
    greeters.vanish("node3")
    said = running.communicate(timeout=120)[0]
    assert running.returncode == 2, said
    _assert_stopped(greeters, said, "node3 failed to verify it: .*")
    assert "node3: unknown, the host cannot be reached" in said
