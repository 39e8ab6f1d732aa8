# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may put code into a process: every way in which a signature can be wrong is told apart, and refused."""

from __future__ import annotations

import base64
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from signing import Settings, keygen, line, make_key, public, sign_file

from module_utils._errors import LivepatchError
from module_utils._module.patch_file import checked_patch
from module_utils._patch import ssh_keygen
from module_utils._patch.signature import MOST_BYTES, fingerprint, sign, signed_by
from module_utils._patch.trust import Verdict, read_trust

BUILDER = "builder@example.org"


class Host:
    """A host with settings, a builder's key, and a file that the builder signed; it is no patch, for none is parsed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(folder / "host")
        self.key = make_key(folder / "builder")
        self.file = folder / "fix.lpatch"
        self.file.write_bytes(os.urandom(5000))
        self.signature = sign_file(self.file, self.key)

    def check(self) -> Verdict:
        """What the host makes of the file, as livepatch_load and livepatch_store do with remote_src."""
        given = {"patch": str(self.file), "_content": None, "_signature": None}
        return checked_patch(given, str(self.settings.folder)).verdict

    def refusal(self) -> LivepatchError:
        """Why it does not take it."""
        with pytest.raises(LivepatchError) as told:
            self.check()
        settings = told.value.code == "trust_unsafe"
        assert str(self.settings.folder if settings else self.file) in told.value.message
        return told.value


@pytest.fixture(name="host")
def fixture_host(tmp_path: Path) -> Host:
    """A host that lets the builder sign."""
    host = Host(tmp_path)
    host.settings.allow(line(BUILDER, host.key))
    return host


def test_a_good_signature_names_who_made_it(host: Host) -> None:
    assert host.check().as_dict() == {
        "policy": "required",
        "verified": True,
        "signer": BUILDER,
        "key": fingerprint(str(host.key)),
        "error": None,
    }


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_keys_of_other_kinds_sign_as_well(host: Host, kind: str) -> None:
    other = make_key(host.folder / kind, kind)
    host.settings.allow(line(BUILDER, host.key), line("other@example.org", other))
    sign_file(host.file, other)
    assert host.check().as_dict()["signer"] == "other@example.org"


def test_a_host_without_keys_asks_for_no_signature(host: Host) -> None:
    (host.settings.folder / "allowed_signers").unlink()
    host.signature.unlink()
    assert host.check() == Verdict("off")
    host.settings.folder.rmdir()
    assert host.check() == Verdict("off")


def test_a_missing_signature_is_refused(host: Host) -> None:
    host.signature.unlink()
    error = host.refusal()
    assert (error.code, "livepatch_build" in error.remedy) == ("signature_missing", True)


def test_a_policy_of_required_needs_no_key_to_refuse(host: Host) -> None:
    (host.settings.folder / "allowed_signers").unlink()
    host.settings.policy("required")
    assert host.refusal().code == "signature_invalid"


def test_a_key_that_nobody_installed_is_refused_by_its_name(host: Host) -> None:
    stranger = make_key(host.folder / "stranger")
    sign_file(host.file, stranger)
    error = host.refusal()
    assert error.code == "signature_invalid"
    assert f"{fingerprint(str(stranger))} is none of this host's allowed signers" in error.message
    assert "prepare_allowed_signers" in error.remedy


def test_a_signature_for_another_purpose_is_refused(host: Host) -> None:
    sign_file(host.file, host.key, "git")
    error = host.refusal()
    assert (error.code, "another purpose" in error.message) == ("signature_invalid", True)
    assert "ssh-keygen -Y sign -n livepatch@cgl" in error.remedy


def test_a_key_allowed_for_another_purpose_only_is_refused(host: Host) -> None:
    host.settings.allow(line(BUILDER, host.key, 'namespaces="git"'))
    error = host.refusal()
    assert (error.code, "allowed signer for another purpose" in error.message) == ("signature_invalid", True)


@pytest.mark.parametrize("form", ["list", "krl"])
def test_a_revoked_key_is_refused(host: Host, form: str) -> None:
    host.settings.revoke(make_key(host.folder / "lost"))
    assert host.check().signer
    if form == "list":
        host.settings.revoke(host.folder / "lost", host.key)
    else:
        keygen("-q", "-k", "-f", host.settings.folder / "revoked_keys", f"{host.key}.pub")
    error = host.refusal()
    assert error.code == "signature_invalid"
    assert f"{fingerprint(str(host.key))} of {BUILDER} is among the revoked keys" in error.message


def test_a_damaged_list_of_revoked_keys_lets_nothing_pass(host: Host) -> None:
    host.settings.write("revoked_keys", "these are no keys\n")
    assert host.refusal().code == "signature_invalid"


@pytest.mark.parametrize(
    ("option", "words"), [('valid-before="20200101"', "expired"), ('valid-after="20380101"', "not yet valid")]
)
def test_a_key_out_of_its_time_is_refused(host: Host, option: str, words: str) -> None:
    host.settings.allow(line(BUILDER, host.key, option))
    error = host.refusal()
    assert (error.code, words in error.message) == ("signature_invalid", True), error.message
    host.settings.allow(line(BUILDER, host.key, 'valid-after="20200101",valid-before="20380101"'))
    assert host.check().signer


@pytest.mark.parametrize("at", [0, 2500, 4999])
def test_a_changed_byte_is_found(host: Host, at: int) -> None:
    raw = bytearray(host.file.read_bytes())
    raw[at] ^= 1
    host.file.write_bytes(raw)
    error = host.refusal()
    assert (error.code, "the file was changed" in error.message) == ("signature_invalid", True)


def test_what_is_cut_off_or_added_is_found(host: Host) -> None:
    raw = host.file.read_bytes()
    for other in (raw[:-1], raw + b"\0", b""):
        host.file.write_bytes(other)
        assert host.refusal().code == "signature_invalid"


def test_the_signature_of_another_file_is_refused(host: Host) -> None:
    other = host.folder / "other"
    other.write_bytes(b"something else")
    host.signature.write_bytes(sign_file(other, host.key).read_bytes())
    assert "another file's" in host.refusal().message


@pytest.mark.parametrize("kind", ["nothing", "words", "cut", "large", "zeros", "byte"])
def test_a_damaged_signature_is_refused(host: Host, kind: str) -> None:
    raw = host.signature.read_bytes()
    letters = bytearray(base64.b64decode(b"".join(raw.splitlines()[1:-1])))
    letters[-5] ^= 1
    spoiled = {
        "nothing": b"",
        "words": b"trust me\n",
        "cut": raw[: len(raw) // 2],
        "large": raw + b"x" * MOST_BYTES,
        "zeros": bytes(len(raw)),
        "byte": b"%s\n%s\n%s\n" % (raw.splitlines()[0], base64.b64encode(letters), raw.splitlines()[-1]),
    }
    host.signature.write_bytes(spoiled[kind])
    assert host.refusal().code == "signature_invalid"


def test_keys_are_changed_without_a_moment_in_which_nothing_counts(host: Host) -> None:
    new = make_key(host.folder / "new")
    host.settings.allow(line(BUILDER, host.key), line(BUILDER, new))
    assert host.check().as_dict()["key"] == fingerprint(str(host.key))
    sign_file(host.file, new)
    assert host.check().as_dict()["key"] == fingerprint(str(new))
    host.settings.allow(line(BUILDER, new))
    assert host.check().as_dict()["key"] == fingerprint(str(new))
    sign_file(host.file, host.key)
    assert host.refusal().code == "signature_invalid"


@pytest.mark.parametrize("principals", ["*@example.org", f"other@example.org,{BUILDER}", f"!x@example.org,{BUILDER}"])
def test_patterns_and_lists_of_principals_work(host: Host, principals: str) -> None:
    host.settings.allow(line(principals, host.key))
    assert host.check().signer


def test_a_line_that_cannot_be_read_stops_no_other(host: Host) -> None:
    host.settings.allow("nonsense\n", 'x@example.org wrong="1" ssh-ed25519 AAAA\n', line(BUILDER, host.key))
    assert host.check().signer


def test_policy_warn_tells_and_takes(host: Host) -> None:
    host.settings.policy("warn")
    assert host.check().signer
    host.signature.unlink()
    told = host.check().as_dict()
    assert (told["policy"], told["verified"], told["error"]["code"]) == ("warn", False, "signature_missing")


def test_policy_off_asks_nobody(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.settings.policy("off")
    host.signature.write_bytes(b"trust me")
    monkeypatch.setattr(ssh_keygen, "PLACES", "/nowhere")
    assert host.check() == Verdict("off")


@pytest.mark.parametrize("name", ["allowed_signers", "revoked_keys", "signature_policy", ""])
@pytest.mark.parametrize("how", ["writable", "owner"])
def test_settings_that_others_may_write_are_not_believed(host: Host, name: str, how: str) -> None:
    host.settings.revoke()
    host.settings.policy("off")
    path = host.settings.folder / name
    if how == "owner":
        os.chown(path, 65534, 65534)
    else:
        os.chmod(path, 0o775 if not name else 0o664)
    error = host.refusal()
    assert error.code == "trust_unsafe"
    assert str(path).rstrip("/") in error.message
    assert ("belongs to user 65534" if how == "owner" else "others than root may write it") in error.message


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "word", "large"])
def test_settings_that_are_not_what_they_must_be_are_not_believed(host: Host, kind: str) -> None:
    path = host.settings.folder / "signature_policy"
    if kind == "link":
        host.settings.write("elsewhere", "off\n")
        path.symlink_to("elsewhere")
    elif kind == "pipe":
        os.mkfifo(path, 0o644)
    elif kind == "folder":
        path.mkdir(mode=0o755)
    else:
        host.settings.policy("optional" if kind == "word" else "off" + " " * 100)
    assert host.refusal().code == "trust_unsafe"


def test_a_host_without_ssh_keygen_refuses_and_says_so(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_keygen, "PLACES", "/nowhere")
    error = host.refusal()
    assert (error.code, "there is no ssh-keygen" in error.message) == ("signature_invalid", True)
    assert "openssh-client" in error.remedy


def test_an_ssh_keygen_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ssh-keygen"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(ssh_keygen, "PLACES", str(tmp_path))
    begin = time.monotonic()
    with pytest.raises(LivepatchError, match="given up") as told:
        ssh_keygen.ssh_keygen("signature_invalid", [], b"x" * (4 << 20), timeout=0.5)
    assert (told.value.code, time.monotonic() - begin < 30) == ("signature_invalid", True)


def test_what_was_sent_along_is_what_is_checked(host: Host) -> None:
    raw, signature = host.file.read_bytes(), host.signature.read_bytes()
    given: dict[str, Any] = {"patch": "fix.lpatch", "_content": base64.b64encode(raw).decode(), "_signature": None}
    with pytest.raises(LivepatchError) as told:
        checked_patch(given, str(host.settings.folder))
    assert told.value.code == "signature_missing"
    given["_signature"] = base64.b64encode(signature).decode()
    sent = checked_patch(given, str(host.settings.folder))
    assert (sent.content, sent.signature, sent.verdict.signer is not None) == (raw, signature, True)


def test_nothing_is_left_on_the_disk_or_open(host: Host) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    temporary = set(os.listdir("/tmp"))
    host.check()
    host.signature.unlink()
    host.refusal()
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert not [name for name in set(os.listdir("/tmp")) - temporary if "livepatch" in name or "sig" in name]


def test_the_caller_cannot_bring_a_program_or_settings_of_its_own(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "ssh-keygen").write_text("#!/bin/sh\nexit 0\n")
    (fake / "ssh-keygen").chmod(0o755)
    monkeypatch.setenv("PATH", str(fake) + ":" + os.environ["PATH"])
    monkeypatch.setenv("LD_PRELOAD", str(fake / "nothing.so"))
    host.signature.write_bytes(b"trust me")
    assert host.refusal().code == "signature_invalid"


def test_signing_gives_what_ssh_keygen_checks(host: Host) -> None:
    raw = host.file.read_bytes()
    signature, key = sign(raw, str(host.key))
    assert key == fingerprint(str(host.key)) == fingerprint(f"{host.key}.pub") == signed_by(raw, signature)
    host.signature.write_bytes(signature)
    assert host.check().signer
    assert signed_by(raw + b"x", signature) == ""


def test_an_agent_signs_by_the_public_key(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(host.folder / "agent")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(host.folder / "agent"))
        while not (host.folder / "agent").exists():
            assert agent.poll() is None
            time.sleep(0.01)
        subprocess.run(["ssh-add", "-q", host.key], check=True)
        host.key.unlink()
        signature, key = sign(host.file.read_bytes(), f"{host.key}.pub")
        assert signed_by(host.file.read_bytes(), signature) == key
    finally:
        agent.terminate()
        agent.wait()


@pytest.mark.parametrize("kind", ["missing", "no key", "passphrase", "readable by all"])
def test_a_key_that_cannot_sign_is_told(host: Host, kind: str) -> None:
    key = host.folder / "bad"
    if kind == "no key":
        key.write_text("this is no key\n")
    elif kind != "missing":
        make_key(key, passphrase="secret" if kind == "passphrase" else "")
        key.chmod(0o644 if kind == "readable by all" else 0o600)
    with pytest.raises(LivepatchError, match="bad") as told:
        sign(b"something", str(key))
    assert (told.value.code, "ssh-agent" in told.value.remedy) == ("signing_failed", True)


def test_a_key_stands_on_one_line_with_all_it_may_sign(host: Host) -> None:
    """What the guide says: of several lines of one key, the first one's principals are tried."""
    host.settings.allow(f'other@example.org namespaces="git" {public(host.key)}\n', line(BUILDER, host.key))
    assert host.refusal().code == "signature_invalid"
    host.settings.allow(line(BUILDER, host.key, 'namespaces="git,livepatch@cgl"'))
    assert host.check().signer


def test_trust_is_read_once(host: Host) -> None:
    trust = read_trust(str(host.settings.folder))
    host.settings.allow()
    assert trust.check(host.file.read_bytes(), host.signature.read_bytes(), str(host.file)).signer
