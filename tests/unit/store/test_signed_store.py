# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What is kept in the store is checked at every application: a signature that counted once may count no more."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from bed import NEW, OLD, Bed, Started, until
from signing import Settings, line, make_key, sign_file

from module_utils._engine.operations import load_patch
from module_utils._errors import LivepatchError
from module_utils._module.patch_file import checked_patch
from module_utils._module.store import keep
from module_utils._patch.reader import read_patch
from module_utils._patch.signature import fingerprint
from module_utils._process.selection import Selection
from module_utils._store.audit_log import examine

BUILDER = "builder@example.org"


class SignedBed(Bed):
    """A host that lets one builder sign, and the patch that this builder signed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.settings = Settings(Path(self.places.root))
        self.key = make_key(folder / "builder")
        self.settings.allow(line(BUILDER, self.key))
        self.file = folder / "fix.lpatch"
        self.signature = sign_file(self.file, self.key)

    def given(self) -> dict[str, Any]:
        """The parameters of a task that names the patch on the host."""
        return {"patch": str(self.file), "_content": None, "_signature": None}

    def store_it(self) -> dict[str, Any]:
        """What livepatch_store does."""
        return keep(self.store, checked_patch(self.given(), self.places.settings), {}, None, False)

    def stored_signature(self) -> Path:
        """The signature in the store."""
        (entry,) = self.store.entries()[0]
        return Path(self.store.patch_path(entry) + ".sig")

    def apply(self) -> subprocess.CompletedProcess[str]:
        """What the service does at boot, and an administrator by hand."""
        command = [self.places.root + "/usr/sbin/livepatch-store", "apply", "--root", self.places.root]
        return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.fixture(name="bed")
def fixture_bed(tmp_path: Path) -> SignedBed:
    """Such a host."""
    return SignedBed(tmp_path)


def test_a_live_process_gets_a_signed_patch_only(bed: SignedBed) -> None:
    with Started(str(bed.program)) as program:
        pid, _first, _now = program.begun()
        meant = Selection(pids=(pid,))
        signature = bed.signature.read_bytes()
        bed.signature.unlink()
        with pytest.raises(LivepatchError) as told:
            checked_patch(bed.given(), bed.places.settings)
        assert told.value.code == "signature_missing"
        bed.signature.write_bytes(signature)
        sent = checked_patch(bed.given(), bed.places.settings)
        bed.file.write_bytes(b"what was read is what is used")
        assert load_patch(read_patch(sent.content), meant).summary() == {
            "targets": 1,
            "changed": 1,
            "failed": 0,
            "max_stop_us": 0,
        }


def test_the_store_names_the_signer_and_keeps_the_signature(bed: SignedBed) -> None:
    told = bed.store_it()
    assert told["signature"]["signer"] == BUILDER
    assert (told["changed"], told["desired"]["signer"], told["desired"]["key"]) == (
        True,
        BUILDER,
        fingerprint(str(bed.key)),
    )
    assert bed.stored_signature().read_bytes() == bed.signature.read_bytes()
    assert not bed.store_it()["changed"]
    assert bed.store.remove("fix")
    assert not list(Path(bed.store.patch_folder).iterdir())


def test_a_patch_signed_anew_is_a_change(bed: SignedBed) -> None:
    bed.store_it()
    new = make_key(bed.folder / "new")
    bed.settings.allow(line(BUILDER, bed.key), line(BUILDER, new))
    sign_file(bed.file, new)
    assert bed.store_it()["changed"]
    assert bed.store.entries()[0][0].key == fingerprint(str(new))
    bed.settings.allow(line(BUILDER, new))
    with Started(str(bed.program)) as program:
        program.begun()
        assert bed.apply().returncode == 0
        assert program.ask() == NEW


def _spoil(bed: SignedBed, how: str) -> str:
    """Make the signature count no more; the code of the error that follows."""
    if how == "gone":
        bed.stored_signature().unlink()
        return "signature_missing"
    if how == "other":
        other = bed.folder / "other"
        other.write_bytes(b"other")
        bed.stored_signature().write_bytes(sign_file(other, bed.key).read_bytes())
    elif how == "revoked":
        bed.settings.revoke(bed.key)
    elif how == "expired":
        bed.settings.allow(line(BUILDER, bed.key, 'valid-before="20200101"'))
    elif how == "nobody":
        bed.settings.allow()
    else:
        (bed.settings.folder / "allowed_signers").chmod(0o666)
        return "trust_unsafe"
    return "signature_invalid"


@pytest.mark.parametrize("how", ["gone", "other", "revoked", "expired", "nobody", "unsafe"])
def test_at_boot_nothing_is_applied_whose_signature_counts_no_more_and_it_is_told(bed: SignedBed, how: str) -> None:
    bed.store_it()
    code = _spoil(bed, how)
    with Started(str(bed.program)) as program:
        program.begun()
        done = bed.apply()
        assert program.ask() == OLD
        told = json.loads(done.stdout)["processes"][0]
        assert (done.returncode, told["applied"], told["failed"]["fix"]["code"]) == (1, [], code)
        written = examine(bed.places, 1).entries[0]
        assert (written["program"], written["outcome"], written["error"]["code"]) == (
            "livepatch-store",
            "refused",
            code,
        )
        with bed.service():
            until(lambda: "runs without patch fix" in bed.told())
            assert program.ask() == OLD
            with Started(bed.places.launcher, str(bed.program)) as started:
                assert started.begun()[1:] == (OLD, OLD)


def test_a_signed_patch_is_there_before_the_programs_own_code(bed: SignedBed) -> None:
    bed.store_it()
    with bed.service(), Started(bed.places.launcher, str(bed.program)) as started:
        assert started.begun()[1:] == (NEW, NEW)
        until(lambda: examine(bed.places).count)
        written = examine(bed.places, 1).entries[0]
        assert (written["program"], written["outcome"], written["signature"]["signer"]) == ("service", "done", BUILDER)


def test_policy_warn_applies_and_tells(bed: SignedBed) -> None:
    bed.store_it()
    bed.settings.policy("warn")
    bed.stored_signature().unlink()
    with bed.service(), Started(bed.places.launcher, str(bed.program)) as started:
        assert started.begun()[1:] == (NEW, NEW)
        until(lambda: "has patch fix all the same: " in bed.told())


def test_what_was_stored_unsigned_is_not_applied_once_a_key_is_installed(bed: SignedBed) -> None:
    (bed.settings.folder / "allowed_signers").unlink()
    bed.signature.unlink()
    assert bed.store_it()["signature"] == {"policy": "off", "verified": False, "signer": "", "key": "", "error": None}
    bed.settings.allow(line(BUILDER, bed.key))
    with Started(str(bed.program)) as program:
        program.begun()
        assert bed.apply().returncode == 1
        assert program.ask() == OLD


def test_a_patch_is_parsed_after_its_signature_only(bed: SignedBed, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.store_it()
    parsed = []
    monkeypatch.setattr("module_utils._store.store.read_patch", parsed.append)
    bed.settings.revoke(bed.key)
    with pytest.raises(LivepatchError, match="revoked"):
        bed.store.patch(bed.store.entries()[0][0])
    assert not parsed


def test_what_is_sent_along_is_never_looked_for_on_the_host(bed: SignedBed) -> None:
    raw = base64.b64encode(bed.file.read_bytes()).decode()
    with pytest.raises(LivepatchError) as told:
        checked_patch({"patch": str(bed.file), "_content": raw, "_signature": None}, bed.places.settings)
    assert told.value.code == "signature_missing"
