# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Signatures of patch files: OpenSSH signatures (ssh-keygen -Y) over the whole file, in a file of their own beside it.

NAME.lpatch.sig is what `ssh-keygen -Y sign -n livepatch@cgl -f KEY NAME.lpatch` writes (OpenSSH's PROTOCOL.sshsig). Who
may sign, and until when, stands in a file of allowed signers (ssh-keygen(1), ALLOWED SIGNERS).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from .._errors import LivepatchError
from .ssh_keygen import ssh_keygen

NAMESPACE = "livepatch@cgl"
SUFFIX = ".sig"
# An RSA signature of 16384 bits, with a certificate for its key, has less.
MOST_BYTES = 64 << 10
_MOST_PRINCIPALS = 64
# A key on a token waits for somebody to touch it.
_SIGN_SECONDS = 120.0
_FINGERPRINT = re.compile(rb"\bSHA256:[A-Za-z0-9+/]+")


@dataclass(frozen=True)
class Signer:
    """Who signed a file: a principal of the allowed signers, and the fingerprint of the key ("SHA256:...")."""

    principal: str
    key: str


def sign(raw: bytes, key: str) -> tuple[bytes, str]:
    """The signature file of these bytes, and the fingerprint of the key.

    `key`: path of a private key, or of a public one whose private half the agent has. Raises LivepatchError
    signing_failed.
    """
    arguments = ["-Y", "sign", "-n", NAMESPACE, "-f", os.path.abspath(key)]
    answer = ssh_keygen("signing_failed", arguments, raw, timeout=_SIGN_SECONDS)
    if not answer.good:
        raise LivepatchError("signing_failed", "the patch cannot be signed with %s: %s" % (key, answer.words))
    return answer.said, signed_by(raw, answer.said)


def fingerprint(key: str) -> str:
    """The fingerprint of a key file, private or public. Raises LivepatchError signing_failed."""
    answer = ssh_keygen("signing_failed", ["-l", "-E", "sha256", "-f", os.path.abspath(key)])
    found = _FINGERPRINT.search(answer.said)
    if not answer.good or not found:
        raise LivepatchError("signing_failed", "%s cannot be read as a key: %s" % (key, answer.words))
    return found.group().decode("ascii")


def signed_by(raw: bytes, signature: bytes) -> str:
    """The fingerprint of the key that made this signature of these bytes, whoever that is; empty where it is none."""
    answer = ssh_keygen("signing_failed", ["-Y", "check-novalidate", "-n", NAMESPACE], raw, {"-s": signature})
    found = _FINGERPRINT.search(answer.said)
    return found.group().decode("ascii") if answer.good and found else ""


def verify(raw: bytes, signature: bytes, signers: bytes, revoked: bytes | None, likely: str = "") -> Signer:
    """Who signed these bytes, by the content of a file of allowed signers and one of revoked keys.

    `likely`: the principal that it was the last time. Raises LivepatchError signature_invalid, which says why; nothing
    but the exit status of ssh-keygen decides.
    """
    if len(signature) > MOST_BYTES:
        raise _invalid("it is larger than %d KiB" % (MOST_BYTES >> 10))
    if likely:
        signer = _verified(raw, signature, signers, revoked, likely)
        if isinstance(signer, Signer):
            return signer
    found = ssh_keygen("signature_invalid", ["-Y", "find-principals"], files={"-s": signature, "-f": signers})
    words, principals = found.words, _principals(found.said) if found.good else []
    for principal in principals:
        signer = _verified(raw, signature, signers, revoked, principal)
        if isinstance(signer, Signer):
            return signer
        words = signer or words
    raise _explained(raw, signature, signers, principals, words)


def _verified(raw: bytes, signature: bytes, signers: bytes, revoked: bytes | None, principal: str) -> Signer | str:
    """The signer where the signature is this principal's and good, else what ssh-keygen said."""
    files = {"-s": signature, "-f": signers}
    if revoked is not None:
        files["-r"] = revoked
    answer = ssh_keygen("signature_invalid", ["-Y", "verify", "-n", NAMESPACE, "-I", principal], raw, files)
    if not answer.good:
        return answer.words
    found = _FINGERPRINT.search(answer.said)
    return Signer(principal, found.group().decode("ascii") if found else "")


def _principals(said: bytes) -> list[str]:
    """The principals of a key: one a line, or, before OpenSSH 8.9, all of them in one; `!` before one denies it."""
    names = [name.strip() for name in re.split(r"[,\n]", said.decode("utf-8", "replace"))]
    usable = [name for name in names if name.isprintable() and 0 < len(name) < 1024 and name[0] not in "!-"]
    return usable[:_MOST_PRINCIPALS]


def _explained(raw: bytes, signature: bytes, signers: bytes, principals: list[str], words: str) -> LivepatchError:
    """Why a signature does not count. Only for people: that it does not is decided."""
    genuine = ssh_keygen("signature_invalid", ["-Y", "check-novalidate", "-n", NAMESPACE], raw, {"-s": signature})
    if not genuine.good:
        if "namespace does not match" in genuine.words:
            return _invalid(
                "it was made for another purpose than %s" % NAMESPACE,
                "Sign the patch file with 'ssh-keygen -Y sign -n %s', or let livepatch_build do so." % NAMESPACE,
            )
        why = "the file was changed, or the signature was, or it is another file's (%s)" % genuine.words
        return _invalid(why, "Get the patch file and its signature from the builder again.")
    found = _FINGERPRINT.search(genuine.said)
    key = "key %s" % found.group().decode("ascii") if found else "the key"
    for principal in principals:
        if isinstance(_verified(raw, signature, signers, None, principal), Signer):
            return _invalid(
                "%s of %s is among the revoked keys of this host" % (key, principal),
                "Have the patch built again, and signed with another key.",
            )
    if "expired" in words or "not yet valid" in words:
        return _invalid(
            "%s may not sign now: %s" % (key, words),
            "Have the patch signed with a key that is valid now, or install that key with another time of validity.",
        )
    if "not permitted for use" in words:
        return _invalid(
            "%s is an allowed signer for another purpose than %s" % (key, NAMESPACE),
            'Add namespaces="%s" to its line of the allowed signers.' % NAMESPACE,
        )
    return _invalid(
        "%s is none of this host's allowed signers (%s)" % (key, words),
        "Install the builder's key if you trust it (role cgl.livepatch.prepare, prepare_allowed_signers).",
    )


def _invalid(why: str, remedy: str | None = None) -> LivepatchError:
    return LivepatchError("signature_invalid", "the signature of the patch does not count: %s" % why, remedy)
