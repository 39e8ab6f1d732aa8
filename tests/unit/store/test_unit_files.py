# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The drop-ins follow the units that are there, whoever wrote them, and what cannot be led is left and told."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bed import Bed

from module_utils._store.install import install, uninstall
from module_utils._store.places import Places
from module_utils._store.unit_files import DROP_IN, SERVICE, UnitRefused, drop_in, generate, unit_text


@pytest.fixture(name="places")
def fixture_places(tmp_path: Path) -> Places:
    """A host with a launcher."""
    places = Places(str(tmp_path / "host"))
    Path(places.program).mkdir(parents=True)
    Path(places.launcher).write_text("#!/bin/sh\n")
    Path(places.launcher).chmod(0o755)
    Path(places.settings).mkdir(parents=True)
    return places


def _unit(places: Places, path: str, text: str) -> None:
    file = Path(places.root + path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def _commands(places: Places, name: str) -> list[str]:
    text = drop_in(unit_text(places, name), "/L", name)
    return [line for line in text.splitlines() if line.startswith("ExecStart=")][1:]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("ExecStart=/usr/bin/x -a %i $B\n", ["ExecStart=/L /usr/bin/x -a %i $B"]),
        ("ExecStart=-/usr/bin/x\n", ["ExecStart=-/L /usr/bin/x"]),
        ("ExecStart=!!:/usr/bin/x\n", ["ExecStart=!!:/L /usr/bin/x"]),
        ("ExecStart=x 'a b' \\\n  # why\n  c\n", ["ExecStart=/L x 'a b'    c"]),
        ("ExecStart=/a\nExecStart=/b\n", ["ExecStart=/L /a", "ExecStart=/L /b"]),
        ("ExecStart=/a\nExecStart=\nExecStart=/b\n", ["ExecStart=/L /b"]),
    ],
)
def test_commands_are_led_through_the_launcher(places: Places, before: str, after: list[str]) -> None:
    _unit(places, "/usr/lib/systemd/system/x.service", "[Unit]\nExecStart=/no\n[Service]\n#ExecStart=/no\n" + before)
    assert _commands(places, "x.service") == after


def test_drop_ins_count_in_their_order_and_ours_comes_last(places: Places) -> None:
    _unit(places, "/usr/lib/systemd/system/x.service", "[Service]\nExecStart=/package\n")
    _unit(places, "/etc/systemd/system/x.service.d/override.conf", "[Service]\nExecStart=\nExecStart=/admin\n")
    _unit(places, "/run/systemd/system/x.service.d/a.conf", "[Service]\nExecStart=\nExecStart=/earlier\n")
    assert _commands(places, "x.service") == ["ExecStart=/L /admin"]
    assert max("override.conf", "a.conf", DROP_IN) == DROP_IN


def test_what_the_administrator_wrote_wins_and_templates_are_found(places: Places) -> None:
    _unit(places, "/lib/systemd/system/x@.service", "[Service]\nExecStart=/package %i\n")
    _unit(places, "/etc/systemd/system/x@.service", "[Service]\nExecStart=/admin %i\n")
    assert _commands(places, "x@1.service") == ["ExecStart=/L /admin %i"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[Service]\nExecStart=@/usr/bin/x y\n", "gives it another name"),
        ("[Service]\nType=oneshot\n", "no ExecStart"),
        ("[Service]\nRootDirectory=/srv\nExecStart=/x\n", "RootDirectory"),
    ],
)
def test_what_cannot_be_led_is_left_and_told(places: Places, tmp_path: Path, text: str, why: str) -> None:
    _unit(places, "/etc/systemd/system/x.service", text)
    _unit(places, "/etc/systemd/system/y.service", "[Service]\nExecStart=/y\n")
    Path(places.units).write_text("x\n# a comment\ny.service\nz\n../evil\n")
    problems = generate(places, str(tmp_path / "out"))
    assert why in problems[0]
    assert ["no such unit" in problems[1], "no name of a service" in problems[2], len(problems)] == [True, True, 3]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["y.service.d"]


def test_without_a_launcher_nothing_is_led_anywhere(places: Places, tmp_path: Path) -> None:
    Path(places.launcher).unlink()
    _unit(places, "/etc/systemd/system/y.service", "[Service]\nExecStart=/y\n")
    Path(places.units).write_text("y\n")
    assert generate(places, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_service_itself_never_asks_itself(places: Places) -> None:
    _unit(places, "/etc/systemd/system/cgl-livepatch.service", "[Service]\nExecStart=/y\n")
    with pytest.raises(UnitRefused):
        _commands(places, "cgl-livepatch.service")


# What systemd reports as left open, and why it must be: what would install a seccomp filter (systemd.exec(5)), for who
# is under one may suspend no other's; and what is the service's work. Nothing else may come up.
_FILTERS = ("LockPersonality", "MemoryDenyWriteExecute", "PrivateDevices", "ProtectClock", "ProtectHostname")
_FILTERS += ("ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "RestrictAddressFamilies_")
_FILTERS += ("RestrictNamespaces_", "RestrictRealtime", "RestrictSUIDSGID", "SystemCall")
_NEEDED = (
    "CapabilityBoundingSet_CAP_DAC_FOWNER_IPC_OWNER",  # memory and files of other users' processes
    "CapabilityBoundingSet_CAP_IPC_LOCK",  # its own memory locked while threads stand still
    "CapabilityBoundingSet_CAP_KILL",  # a program held at its entry, let go
    "CapabilityBoundingSet_CAP_NET_ADMIN",  # process events
    "CapabilityBoundingSet_CAP_SYS_ADMIN",  # filters suspended, map_files
    "CapabilityBoundingSet_CAP_SYS_NICE_RESOURCE",  # ahead of hogs while threads stand still
    "CapabilityBoundingSet_CAP_SYS_PTRACE",
    "PrivateNetwork",  # process events are told in the host's network namespace only
    "PrivateUsers",  # in a user namespace of its own it has no right over others' processes
    "ProcSubset",  # /proc/sys, /proc/cmdline
    "ProtectProc",  # all processes
    "UserOrDynamicUser",  # root
)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_the_service_is_confined(tmp_path: Path) -> None:
    """In all that systemd judges, but for what is a seccomp filter and what it cannot work without."""
    bed = Bed(tmp_path)
    (unit,) = Path(bed.places.root).rglob(SERVICE)
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--json=short", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unrecognized option" in told.stderr:  # before systemd 250
        pytest.skip("this systemd cannot judge a unit that is not loaded")
    judged = {entry["json_field"]: entry["set"] for entry in json.loads(told.stdout)}
    left = {name for name, kept in judged.items() if kept is False}
    assert len(judged) > 70
    assert {name for name in left if not name.startswith(_FILTERS) and name not in _NEEDED} == set(), told.stdout
    assert {name for name in judged if name.startswith(_FILTERS) and name not in left} == set(), "a seccomp filter"


def test_installing_twice_changes_nothing_and_taking_away_leaves_the_store(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    bed.keep()
    assert install(bed.places, sys.executable) == []
    assert len(install(bed.places, sys.executable, 20.0, pretend=True)) == 1
    assert uninstall(bed.places)
    assert not Path(bed.places.program).exists()
    assert [entry.id for entry in bed.store.entries()[0]] == ["fix"]
    assert uninstall(bed.places) == []
