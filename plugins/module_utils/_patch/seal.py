# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The seal at the end of a patch file: a digest of all that stands before it, so that no damage goes unnoticed.

ELF tools ignore what follows the last section. A seal tells a damaged file from a whole one; who made it, it does not
tell.
"""

from __future__ import annotations

import hashlib

from .._errors import LivepatchError

MARK = b"LPSEAL1\0"
SIZE = len(MARK) + 32


def sealed(body: bytes) -> bytes:
    """A whole patch file: the ELF object `body`, and its seal."""
    return body + MARK + hashlib.sha256(body).digest()


def unsealed(raw: bytes) -> bytes:
    """The ELF object in a whole patch file. Raises LivepatchError patch_corrupt where the seal is missing or broken."""
    body, seal = raw[:-SIZE], raw[-SIZE:]
    if len(seal) != SIZE or not seal.startswith(MARK):
        raise LivepatchError("patch_corrupt", "the patch file is cut off or no patch file: it does not end with a seal")
    if seal != sealed(body)[-SIZE:]:
        raise LivepatchError("patch_corrupt", "the patch file is damaged: its digest is not the one in its seal")
    return body
