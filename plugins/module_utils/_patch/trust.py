# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host trusts: who may sign patches for it, whose keys are revoked, and what becomes of a patch without that.

    allowed_signers     as in ssh-keygen(1), ALLOWED SIGNERS
    revoked_keys        a key revocation list, or public keys, one a line; may be missing
    signature_policy    `required`, `warn` or `off`; without it `required` once there are allowed signers, else `off`

All of it is root's, and nobody else may write it; otherwise nothing is believed, and no patch is taken.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Any

from .._errors import LivepatchError
from .signature import Signer, verify

REQUIRED, WARN, OFF = "required", "warn", "off"
SIGNERS, REVOKED, POLICY = "allowed_signers", "revoked_keys", "signature_policy"
_MOST = {SIGNERS: 1 << 20, REVOKED: 16 << 20, POLICY: 64}


@dataclass(frozen=True)
class Verdict:
    """What the signature of one patch is worth here; `error` says why it counts for nothing, `signer` whose it is."""

    policy: str
    signer: Signer | None = None
    error: LivepatchError | None = None

    def as_dict(self) -> dict[str, Any]:
        """As results have it: {policy, verified, signer, key, error}."""
        return {
            "policy": self.policy,
            "verified": self.signer is not None,
            "signer": self.signer.principal if self.signer else "",
            "key": self.signer.key if self.signer else "",
            "error": self.error.as_dict() if self.error else None,
        }


@dataclass(frozen=True)
class Trust:
    """The content of the files, as it was when it was read; `folder` only for people."""

    folder: str
    policy: str
    signers: bytes = b""
    revoked: bytes | None = None

    def check(self, raw: bytes, signature: bytes | None, path: str, likely: str = "") -> Verdict:
        """What the signature of these bytes is worth. `path`: of the patch file, only for people; `likely`: the
        principal that it was the last time.

        Raises LivepatchError signature_missing or signature_invalid, which name the file, where signatures are
        required.
        """
        if self.policy == OFF:
            return Verdict(OFF)
        try:
            return Verdict(self.policy, self._signer(raw, signature, likely))
        except LivepatchError as error:
            named = LivepatchError(error.code, "%s: %s" % (path, error.message), error.remedy)
            if self.policy == REQUIRED:
                raise named from None
            return Verdict(self.policy, error=named)

    def _signer(self, raw: bytes, signature: bytes | None, likely: str) -> Signer:
        if signature is None:
            raise LivepatchError("signature_missing", "the patch file has no signature beside it (NAME.lpatch.sig)")
        return verify(raw, signature, self.signers, self.revoked, likely)


def read_trust(folder: str) -> Trust:
    """What stands in the folder of settings of a host. Raises LivepatchError trust_unsafe, which names the file."""
    try:
        _check(folder, os.lstat(folder), stat.S_ISDIR, "folder")
    except FileNotFoundError:
        return Trust(folder, OFF)
    signers, revoked, word = (_read(folder, name) for name in (SIGNERS, REVOKED, POLICY))
    if word is None:
        policy = OFF if signers is None else REQUIRED
    else:
        policy = word.decode("utf-8", "replace").strip()
        if policy not in (REQUIRED, WARN, OFF):
            path = os.path.join(folder, POLICY)
            raise _unsafe(path, "it says %r, and not %s, %s or %s" % (policy, REQUIRED, WARN, OFF))
    return Trust(folder, policy, signers or b"", revoked)


def _read(folder: str, name: str) -> bytes | None:
    path = os.path.join(folder, name)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unsafe(path, os.strerror(error.errno or 0)) from None
    try:
        _check(path, os.fstat(descriptor), stat.S_ISREG, "plain file")
        with open(descriptor, "rb", closefd=False) as stream:
            raw = stream.read(_MOST[name] + 1)
    finally:
        os.close(descriptor)
    if len(raw) > _MOST[name]:
        raise _unsafe(path, "it is larger than %d bytes" % _MOST[name])
    return raw


def _check(path: str, status: os.stat_result, is_kind: Any, kind: str) -> None:
    if not is_kind(status.st_mode):
        raise _unsafe(path, "it is no %s" % kind)
    if status.st_uid != 0:
        raise _unsafe(path, "it belongs to user %d, and not to root" % status.st_uid)
    if status.st_mode & 0o022:
        raise _unsafe(path, "others than root may write it (mode %o)" % (status.st_mode & 0o777))


def _unsafe(path: str, why: str) -> LivepatchError:
    return LivepatchError("trust_unsafe", "%s cannot be believed: %s" % (path, why))
