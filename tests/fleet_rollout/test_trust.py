# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Signed patches over a fleet: a builder signs, hosts trust that builder, and take nothing else. Needs root."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_rollout.greeters import NEW, OLD, Greeters
from testbed import Fleet


def _key(path: Path) -> str:
    """A key; its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a builder", "-f", path], check=True)
    return Path(f"{path}.pub").read_text().strip()


@pytest.fixture(name="greeters", scope="module")
def fixture_greeters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Greeters]:
    """Two hosts with running greeters, and a patch for them that a builder signed."""
    work = tmp_path_factory.mktemp("trust")
    with Fleet(hosts=2, name=f"trust-{os.getpid()}") as fleet:
        made = Greeters(fleet, work)
        _key(work / "builder")
        made.build(livepatch_signing_key=str(work / "builder"))
        for host in made.names:
            made.start(host)
        yield made


def _module(greeters: Greeters, name: str, host: str, **options: Any) -> dict[str, Any]:
    """The result of one module on one host."""
    command = ["ansible", host, "-m", f"cgl.livepatch.{name}", "-a", json.dumps(options)]
    environment = {**greeters.environment(), "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    done = greeters.fleet.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    result: dict[str, Any] = json.loads(done.stdout.partition("=> ")[2])
    return result


def _check_log(greeters: Greeters) -> None:
    """All of it was written down, and the chain holds until somebody changes a line."""
    host = greeters.names[0]
    log = _module(greeters, "livepatch_facts", host, audit=True)["ansible_facts"]["livepatch"]["audit"]
    assert (log["intact"], log["breaks"]) == (True, [])
    told = [(one["action"], one["outcome"], one.get("error", {}).get("code")) for one in log["entries"]]
    assert told[:2] == [("load", "refused", "signature_missing"), ("load", "refused", "signature_invalid")]
    assert told[2:6] == [(action, "done", None) for action in ("load", "activate", "deactivate", "unload")]
    assert log["entries"][2]["signature"]["signer"] == "builder@example.org"
    assert log["entries"][2]["processes"][0]["pid"] == greeters.pid(host)

    path = greeters.fleet.path(host, log["path"])
    path.write_text(path.read_text().replace('"refused"', '"done"', 1))
    log = _module(greeters, "livepatch_facts", host, audit=True)["ansible_facts"]["livepatch"]["audit"]
    assert not log["intact"]


def test_only_what_the_builder_signed_is_rolled_out(greeters: Greeters, tmp_path: Path) -> None:
    work = greeters.patch.parent
    signature = Path(f"{greeters.patch}.sig")
    assert signature.exists()
    builder = {"principals": ["builder@example.org"], "key": Path(work / "builder.pub").read_text().strip()}
    greeters.play("prepare", 0, "--check", "--diff", prepare_allowed_signers=[builder])
    settings = [greeters.fleet.path(host, "/etc/cgl-livepatch") for host in greeters.names]
    assert not [place for place in settings if (place / "allowed_signers").exists()]
    greeters.play("prepare", 0, prepare_allowed_signers=[builder])
    assert "changed=0" in greeters.play("prepare", 0, prepare_allowed_signers=[builder])

    kept = signature.read_bytes()
    signature.unlink()
    refused = greeters.play("rollout", 2, livepatch_patch=str(greeters.patch))
    assert "signature_missing" in refused
    assert greeters.all_say() == [OLD, OLD]

    stranger = tmp_path / "stranger"
    _key(stranger)
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", "livepatch@cgl", "-f", stranger, greeters.patch], check=True
    )
    refused = greeters.play("rollout", 2, livepatch_patch=str(greeters.patch))
    assert "none of this host's allowed signers" in refused.replace("\\'", "'")
    assert greeters.all_say() == [OLD, OLD]

    signature.write_bytes(kept)
    said = greeters.play("rollout", 0, "-v", livepatch_patch=str(greeters.patch))
    assert '"signer": "builder@example.org"' in said
    assert greeters.all_say() == [NEW, NEW]
    greeters.play("rollback", 0, livepatch_patch="fix-greeting")

    greeters.play("prepare", 0, prepare_revoked_keys=[builder["key"]])
    refused = greeters.play("rollout", 2, livepatch_patch=str(greeters.patch))
    assert "among the revoked keys" in refused
    greeters.play("prepare", 0, prepare_signature_policy="warn")
    assert "signature_policy warn" in greeters.play("rollout", 0, livepatch_patch=str(greeters.patch))
    assert greeters.all_say() == [NEW, NEW]
    _check_log(greeters)


@pytest.mark.long
def test_a_patch_too_large_to_go_along_brings_its_signature(greeters: Greeters, tmp_path: Path) -> None:
    host = greeters.names[1]
    greeters.play("prepare", 0, "--limit", host, prepare_revoked_keys=[], prepare_signature_policy="required")
    large = tmp_path / "large.lpatch"
    large.write_bytes(os.urandom(300_000))
    assert _module(greeters, "livepatch_load", host, patch=str(large))["error"]["code"] == "signature_missing"
    key = greeters.patch.parent / "builder"
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-n", "livepatch@cgl", "-f", key, large], check=True)
    result = _module(greeters, "livepatch_load", host, patch=str(large))
    assert (result["error"]["code"], result["signature"]["signer"]) == ("patch_corrupt", "builder@example.org")


@pytest.mark.long
@pytest.mark.parametrize(
    "wrong",
    [
        {"prepare_allowed_signers": [{"principals": ["a b"], "key": "ssh-ed25519 AAAA"}]},
        {"prepare_allowed_signers": [{"principals": ["a"], "key": "ssh-ed25519 AAAA\nb ssh-ed25519 AAAA"}]},
        {"prepare_allowed_signers": [{"principals": ["a"], "key": "ssh-ed25519 AAAA", "valid_before": "never"}]},
        {"prepare_allowed_signers": [{"principals": [], "key": "ssh-ed25519 AAAA"}]},
        {"prepare_revoked_keys": ["cert-authority ssh-ed25519 AAAA"]},
        {"prepare_revoked_keys": [], "prepare_revoked_keys_file": "krl"},
        {"prepare_signature_policy": "maybe"},
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_written(
    greeters: Greeters, wrong: dict[str, object]
) -> None:
    settings = greeters.fleet.path(greeters.names[0], "/etc/cgl-livepatch")
    before = {path.name: path.read_bytes() for path in settings.iterdir()} if settings.exists() else {}
    greeters.play("prepare", 2, "--limit", greeters.names[0], **wrong)
    assert before == ({path.name: path.read_bytes() for path in settings.iterdir()} if settings.exists() else {})
