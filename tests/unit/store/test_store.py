# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The store is whole at any time, readable by people, and believes nothing."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from bed import Bed

from module_utils._errors import LivepatchError
from module_utils._store import files
from module_utils._store.desired import MOST_BYTES


@pytest.fixture(name="bed")
def fixture_bed(tmp_path: Path) -> Bed:
    """A host that wants the patch."""
    bed = Bed(tmp_path)
    bed.keep(user="nobody")
    return bed


def _file(bed: Bed) -> Path:
    return Path(bed.store.desired_folder, "fix.json")


def test_what_is_stored_is_found_again_and_is_its_owners_alone(bed: Bed) -> None:
    entries, errors = bed.store.entries()
    assert not errors
    assert (entries[0].id, entries[0].processes) == ("fix", {"user": "nobody"})
    assert bed.store.patch(entries[0])[0] == bed.patch
    for folder, folders, names in os.walk(bed.places.store):
        assert [stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode) for name in folders] == [0o700] * len(folders)
        assert [stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode) for name in names] == [0o600] * len(names)
    assert json.loads(_file(bed).read_text())["processes"] == {"user": "nobody"}


def test_it_is_gone_when_it_is_not_desired_any_more(bed: Bed) -> None:
    assert bed.store.remove("fix")
    assert (bed.store.entries(), os.listdir(bed.store.patch_folder)) == (([], []), [])
    assert not bed.store.remove("fix")


@pytest.mark.parametrize("point", ["open", "fsync", "rename"])
def test_a_write_that_ends_early_leaves_what_was_there(bed: Bed, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    def fail(*_arguments: object, **_named: object) -> None:
        raise OSError(28, "no space left")

    before = bed.store.entries()
    monkeypatch.setattr(files.os, point, fail)
    with pytest.raises(OSError, match="no space"):
        bed.keep(user="root")
    monkeypatch.undo()
    assert bed.store.entries() == before
    assert not [name for _folder, _folders, names in os.walk(bed.places.store) for name in names if ".new" in name]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", 2),
        ("id", "../../etc/passwd"),
        ("id", "other"),
        ("id", 7),
        ("sha256", "xyz"),
        ("build_id", "../.."),
        ("enabled", "yes"),
        ("stored_at", -1),
        ("paths", ["relative"]),
        ("processes", {"pids": "1"}),
        ("processes", {"user": ["root"]}),
        ("requires", ["a b"]),
        ("version", "1\u001b[2J"),
        ("more", 1),
    ],
)
def test_hostile_content_is_refused_by_name(bed: Bed, field: str, value: object) -> None:
    plain = json.loads(_file(bed).read_text())
    plain[field] = value
    _file(bed).write_text(json.dumps(plain))
    entries, errors = bed.store.entries()
    assert not entries
    assert [error.code for error in errors] == ["store_corrupt"]
    assert str(_file(bed)) in errors[0].message


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"[" * 50000, b" " * (MOST_BYTES + 1)])
def test_damaged_content_is_refused(bed: Bed, raw: bytes) -> None:
    _file(bed).write_bytes(raw)
    assert [error.code for error in bed.store.entries()[1]] == ["store_corrupt"]


def test_what_others_may_have_written_is_refused(bed: Bed) -> None:
    os.chmod(_file(bed), 0o622)
    assert "others than its owner" in bed.store.entries()[1][0].message
    os.chmod(_file(bed), 0o600)
    os.chown(_file(bed), 65534, 65534)
    assert "belongs to user 65534" in bed.store.entries()[1][0].message


def test_a_link_a_pipe_and_a_folder_are_refused(bed: Bed, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    _file(bed).rename(elsewhere)
    _file(bed).symlink_to(elsewhere)
    assert [error.code for error in bed.store.entries()[1]] == ["store_corrupt"]
    _file(bed).unlink()
    os.mkfifo(_file(bed), 0o600)
    assert [error.code for error in bed.store.entries()[1]] == ["store_corrupt"]
    _file(bed).unlink()
    _file(bed).mkdir(mode=0o700)
    assert [error.code for error in bed.store.entries()[1]] == ["store_corrupt"]


def test_a_folder_that_others_may_write_to_is_refused(bed: Bed) -> None:
    os.chmod(bed.store.desired_folder, 0o777)
    with pytest.raises(LivepatchError, match="others than its owner"):
        bed.store.entries()


@pytest.mark.parametrize("damage", ["cut", "flip", "swap", "gone"])
def test_a_patch_file_that_is_not_the_one_that_was_stored_is_refused(bed: Bed, damage: str) -> None:
    entry = bed.store.entries()[0][0]
    path = Path(bed.store.patch_path(entry))
    raw = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "swap":
        from patching import make_patch

        other = make_patch(bed.folder, bed.program, "int answer(int x) { return x + 7; }", ["answer"], "fix")
        assert other.sha256 != entry.sha256
        path.write_bytes((bed.folder / "fix.lpatch").read_bytes())
    else:
        path.write_bytes(raw[:-100] if damage == "cut" else raw[:200] + bytes([raw[200] ^ 1]) + raw[201:])
    with pytest.raises(LivepatchError) as told:
        bed.store.patch(entry)
    assert told.value.code == "store_corrupt"
    assert str(path) in told.value.message
