# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the store of this host holds, as facts: desired, held back, switched off, damaged."""

from __future__ import annotations

from typing import Any

from .._errors import LivepatchError
from .._patch.trust import read_trust
from .desired import Desired
from .guard import held_programs
from .kill_switch import switched_off
from .store import Store


def status(store: Store) -> dict[str, Any]:
    """{"switched_off": why, "signature_policy": word, "patches": {id: {...}}, "errors": [{code, message, remedy}]}."""
    errors: list[LivepatchError] = []
    try:
        entries, damaged = store.entries()
        errors += damaged
    except LivepatchError as error:
        entries = []
        errors.append(error)
    patches = {}
    for entry in entries:
        patches[entry.id] = dict(about(entry), held={})
        try:
            patches[entry.id]["held"] = held_programs(store, entry.id)
        except LivepatchError as error:
            errors.append(error)
    policy = ""
    try:
        policy = read_trust(store.places.settings).policy
    except LivepatchError as error:
        errors.append(error)
    return {
        "switched_off": switched_off(store.places),
        "signature_policy": policy,
        "patches": patches,
        "errors": [error.as_dict() for error in errors],
    }


def about(entry: Desired) -> dict[str, Any]:
    """One entry, as results and facts show it."""
    return {
        "version": entry.version,
        "sha256": entry.sha256,
        "build_id": entry.build_id,
        "object": entry.object,
        "cves": list(entry.cves),
        "enabled": entry.enabled,
        "signer": entry.signer,
        "key": entry.key,
        "stored_at": entry.stored_at,
        "paths": list(entry.paths),
        "processes": dict(entry.processes),
        "requires": list(entry.requires),
        "replaces": list(entry.replaces),
    }
