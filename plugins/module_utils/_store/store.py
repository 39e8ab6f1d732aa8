# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The store: a folder with the patches of a host, and what is desired of each beside them.

    desired/ID.json              what is desired, for people to read (see desired.py)
    patches/ID.DIGEST.lpatch     the patch file
    patches/ID.DIGEST.lpatch.sig its signature, where it has one; checked whenever the patch is to be used
    held/ID.json                 what the crash-loop guard knows of a patch (see guard.py)

A patch file is there before what names it, and is named by its digest: whenever we are killed, the old or the new one
is whole.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace

from .._errors import LivepatchError
from .._patch.content import Patch
from .._patch.manifest import check_id
from .._patch.reader import MOST_FILE_BYTES, read_patch
from .._patch.signature import MOST_BYTES as MOST_SIGNATURE
from .._patch.signature import SUFFIX
from .._patch.trust import OFF, Verdict, read_trust
from .desired import MOST_BYTES, Desired, corrupt, parse_desired
from .files import check_folder, make_folder, read_file, remove_file, write_file
from .places import Places

_MOST_ENTRIES = 4096
_PATCH_NAME = re.compile(r"((.+)\.[0-9a-f]{16}\.lpatch)(?:\.sig)?\Z")


class Store:
    """The store of one host."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.desired_folder = places.store + "/desired"
        self.patch_folder = places.store + "/patches"
        self.held_folder = places.store + "/held"

    def entries(self) -> tuple[list[Desired], list[LivepatchError]]:
        """All that is desired, by id, and an error for each file that cannot be used. Raises LivepatchError."""
        found, errors = [], []
        try:
            for folder in (self.places.store, self.desired_folder):
                check_folder(folder)
            names = sorted(os.listdir(self.desired_folder))[:_MOST_ENTRIES]
        except FileNotFoundError:
            return [], []
        for name in names:
            if not name.endswith(".json"):
                continue  # one that is just being written
            path = os.path.join(self.desired_folder, name)
            try:
                entry = parse_desired(read_file(path, MOST_BYTES), path)
                if name != entry.id + ".json":
                    raise corrupt(path, "it speaks of patch %s" % entry.id)
                found.append(entry)
            except FileNotFoundError:
                continue
            except LivepatchError as error:
                errors.append(error)
        return found, errors

    def entry(self, patch_id: str) -> Desired | None:
        """What is desired of one patch, None when nothing is. Raises LivepatchError store_corrupt."""
        path = self._desired_path(check_id(patch_id))
        try:
            check_folder(self.places.store)
            found = parse_desired(read_file(path, MOST_BYTES), path)
        except FileNotFoundError:
            return None
        if found.id != patch_id:
            raise corrupt(path, "it speaks of patch %s" % found.id)
        return found

    def patch(self, entry: Desired) -> tuple[Patch, Verdict]:
        """The patch of an entry, and what its signature is worth now.

        Raises LivepatchError store_corrupt where it is not the one that was stored; signature_missing,
        signature_invalid, trust_unsafe. Nothing is parsed before the signature is checked.
        """
        path, trust = self.patch_path(entry), read_trust(self.places.settings)
        raw = self._read(path, MOST_FILE_BYTES)
        if raw is None:
            raise corrupt(path, "it is not there")
        if hashlib.sha256(raw).hexdigest() != entry.sha256:
            raise corrupt(path, "it is not the patch that was put there")
        signature = self._read(path + SUFFIX, MOST_SIGNATURE) if trust.policy != OFF else None
        verdict = trust.check(raw, signature, path, entry.signer)
        try:
            patch = read_patch(raw)
        except LivepatchError as error:
            raise corrupt(path, error.message) from None
        if (patch.manifest.id, patch.manifest.object.build_id) != (entry.id, entry.build_id):
            raise corrupt(path, "it is not the patch that was put there")
        return patch, verdict

    def holds(self, entry: Desired, raw: bytes, signature: bytes | None) -> bool:
        """Whether the files of an entry are these."""
        path = self.patch_path(entry)
        try:
            there = self._read(path, MOST_FILE_BYTES), self._read(path + SUFFIX, MOST_SIGNATURE)
        except LivepatchError:
            return False
        return there == (raw, signature)

    def _read(self, path: str, most: int) -> bytes | None:
        try:
            check_folder(self.patch_folder)
            return read_file(path, most)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise corrupt(path, os.strerror(error.errno or 0)) from None

    def patch_path(self, entry: Desired) -> str:
        """Where the patch file of an entry lies."""
        return os.path.join(self.patch_folder, entry.file_name)

    def put(self, entry: Desired, raw: bytes | None = None, signature: bytes | None = None) -> None:
        """Desire `entry`; `raw`, `signature`: its files, where they are not there. Raises OSError, LivepatchError."""
        for folder in (self.places.store, self.desired_folder, self.patch_folder):
            make_folder(folder)
        if raw is not None:
            beside = self.patch_path(entry) + SUFFIX
            write_file(beside, signature) if signature is not None else remove_file(beside)
            write_file(self.patch_path(entry), raw)
        write_file(self._desired_path(entry.id), entry.to_json())
        self._tidy(entry.id, entry.file_name)

    def remove(self, patch_id: str) -> bool:
        """Desire a patch no more; True when anything of it was there, whole or damaged."""
        removed = remove_file(self._desired_path(check_id(patch_id))) if os.path.isdir(self.desired_folder) else False
        return self._tidy(patch_id, "") or removed

    def has(self, patch_id: str) -> bool:
        """Whether anything of a patch is there, whole or damaged."""
        names = os.listdir(self.patch_folder) if os.path.isdir(self.patch_folder) else []
        matches = [_PATCH_NAME.match(name) for name in names]
        return os.path.lexists(self._desired_path(check_id(patch_id))) or any(
            match and match.group(2) == patch_id for match in matches
        )

    def note_path(self, patch_id: str, path: str) -> None:
        """Remember where the object of a patch was seen. Raises OSError, LivepatchError."""
        entry = self.entry(patch_id)
        if entry is not None and path not in entry.paths and path.startswith("/") and path.isprintable():
            self.put(replace(entry, paths=(*entry.paths, path)))

    def _desired_path(self, patch_id: str) -> str:
        return os.path.join(self.desired_folder, patch_id + ".json")

    def _tidy(self, patch_id: str, keep: str) -> bool:
        """Take away patch files of this id but one; True when there were any."""
        removed = False
        names = os.listdir(self.patch_folder) if os.path.isdir(self.patch_folder) else []
        for name in names:
            match = _PATCH_NAME.match(name)
            if match and match.group(2) == patch_id and match.group(1) != keep:
                removed = remove_file(os.path.join(self.patch_folder, name)) or removed
        return removed
