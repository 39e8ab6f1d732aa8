# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host knows: the patches of its store and those that were loaded, and nothing that a process names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bed import Bed

from module_utils._store.known import KnownPatches


def test_what_was_loaded_or_stored_is_known(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    digest = bed.patch.sha256
    assert KnownPatches(bed.places)(digest) is None
    bed.keep()
    assert KnownPatches(bed.places)(digest) == bed.patch
    bed.store.remove("fix")
    assert KnownPatches(bed.places)(digest) is None
    KnownPatches(bed.places).learn((tmp_path / "fix.lpatch").read_bytes(), digest)
    assert KnownPatches(bed.places)(digest) == bed.patch


@pytest.mark.parametrize("digest", ["", "../../../etc/passwd", "0" * 63, "0" * 64 + "\n", "/dev/zero"])
def test_a_process_names_no_file(tmp_path: Path, digest: str) -> None:
    bed = Bed(tmp_path)
    known = KnownPatches(bed.places)
    assert known(digest) is None
    with pytest.raises(ValueError, match="digest"):
        known.learn(b"", digest)


def test_what_others_may_have_written_is_not_known(tmp_path: Path) -> None:
    bed = Bed(tmp_path)
    digest = bed.patch.sha256
    KnownPatches(bed.places).learn((tmp_path / "fix.lpatch").read_bytes(), digest)
    path = Path(bed.places.store) / "known" / (digest + ".lpatch")
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    path.chmod(0o666)
    assert KnownPatches(bed.places)(digest) is None
    path.chmod(0o600)
    path.write_bytes(path.read_bytes() + b"x")
    assert KnownPatches(bed.places)(digest) is None


def test_what_was_learnt_first_is_forgotten_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("module_utils._store.known._MOST_KEPT", 3)
    bed = Bed(tmp_path)
    known = KnownPatches(bed.places)
    for index in range(5):
        known.learn(b"%d" % index, "%064d" % index)
        os.utime(Path(bed.places.store) / "known" / ("%064d.lpatch" % index), (index, index))
    assert sorted(path.name for path in (Path(bed.places.store) / "known").iterdir()) == [
        "%064d.lpatch" % index for index in (2, 3, 4)
    ]
