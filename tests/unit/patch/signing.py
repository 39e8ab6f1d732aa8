# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Keys, signers and a host's policy for the tests of signatures: the real ssh-keygen makes and revokes them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from module_utils._store.places import Places

NAMESPACE = "livepatch@cgl"


def keygen(*words: str | Path) -> None:
    """Run ssh-keygen, which must succeed."""
    subprocess.run(["ssh-keygen", *map(str, words)], check=True, capture_output=True)


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A private key; its public half lies beside it."""
    keygen("-q", "-t", kind, "-N", passphrase, "-C", "a builder", "-f", path)
    return path


def public(key: Path) -> str:
    """The public half, without its comment."""
    return " ".join(Path(f"{key}.pub").read_text().split()[:2])


def line(principals: str, key: Path, options: str = f'namespaces="{NAMESPACE}"') -> str:
    """A line of the allowed signers."""
    return f"{principals} {options} {public(key)}\n"


def sign_file(path: Path, key: Path, namespace: str = NAMESPACE) -> Path:
    """The signature beside a file, as a person makes it."""
    signature = Path(f"{path}.sig")
    signature.unlink(missing_ok=True)
    keygen("-Y", "sign", "-n", namespace, "-f", key, path)
    return signature


class Settings:
    """The folder of a host's settings, below a folder of the test's."""

    def __init__(self, root: Path) -> None:
        self.folder = Path(Places(str(root)).settings)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o755)

    def write(self, name: str, content: str | bytes, mode: int = 0o644) -> None:
        """One of its files."""
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        os.chmod(path, mode)

    def allow(self, *lines: str) -> None:
        """Its allowed signers."""
        self.write("allowed_signers", "# who may sign\n" + "".join(lines))

    def revoke(self, *keys: Path) -> None:
        """Its revoked keys, as a list of public keys."""
        self.write("revoked_keys", "".join(public(key) + "\n" for key in keys))

    def policy(self, word: str) -> None:
        """Its policy."""
        self.write("signature_policy", word + "\n")
