# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""From an archive of ansible-galaxy to one whose bytes only its files decide, and its bill of materials.

archive_files.py ARCHIVE DIR: writes DIR/NAME.tar.gz and DIR/NAME.cdx.json (CycloneDX 1.5, held against its
schema). Times in both are
SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/), seconds.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
import time
import uuid
from pathlib import Path
from typing import Any

import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

# What the collection uses and does not bring: whose, under which licence, and where it is needed.
_LIBRARIES = (
    ("ansible-core", "GPL-3.0-or-later", "the controller and each host"),
    ("python-ptrace", "GPL-2.0-only", "each host"),
    ("pyelftools", "Unlicense", "each host and the build host"),
    ("jmespath", "MIT", "the controller, for the filter query"),
)


def read(archive: Path) -> dict[str, tuple[bytes | None, int]]:
    """Content (None for a folder) and mode of each member."""
    with tarfile.open(archive) as tar:
        return {one.name: (_content(tar, one), one.mode) for one in tar.getmembers()}


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | None:
    stream = tar.extractfile(member)
    return stream.read() if stream else None


def in_order(members: dict[str, tuple[bytes | None, int]]) -> None:
    """Put the list of files in order, and into the manifest the digest that it has then."""
    files = json.loads(members["FILES.json"][0] or b"")
    files["files"].sort(key=lambda one: one["name"])
    manifest = json.loads(members["MANIFEST.json"][0] or b"")
    raw = _json(files)
    manifest["file_manifest_file"]["chksum_sha256"] = hashlib.sha256(raw).hexdigest()
    members["FILES.json"] = raw, 0o644
    members["MANIFEST.json"] = _json(manifest), 0o644


def pack(members: dict[str, tuple[bytes | None, int]], at: int) -> bytes:
    """The archive, in the order of names, the manifests first as ansible-galaxy has it."""
    first = ["MANIFEST.json", "FILES.json"]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in first + sorted(set(members) - set(first)):
            content, mode = members[name]
            member = tarfile.TarInfo(name)
            member.mode, member.mtime, member.size = mode, at, len(content or b"")
            member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            tar.addfile(member, io.BytesIO(content or b""))
    return gzip.compress(packed.getvalue(), 9, mtime=at)


def bill(members: dict[str, tuple[bytes | None, int]], archive: bytes, at: int) -> dict[str, Any]:
    """What the archive holds, file by file, and what it needs: CycloneDX 1.5."""
    about = json.loads(members["MANIFEST.json"][0] or b"")["collection_info"]
    name, digest = "%s.%s" % (about["namespace"], about["name"]), hashlib.sha256(archive).hexdigest()
    own = "%s@%s" % (name, about["version"])
    wanted = yaml.safe_load(members["meta/runtime.yml"][0] or b"")["requires_ansible"]
    libraries = [
        {
            "type": "library",
            "bom-ref": library,
            "name": library,
            **({"version": wanted} if library == "ansible-core" else {}),
            "purl": "pkg:pypi/" + library,
            "licenses": [{"license": {"id": licence}}],
            "description": "Not in the archive; needed on " + where,
        }
        for library, licence, where in _LIBRARIES
    ]
    files = [
        {
            "type": "file",
            "bom-ref": "file:" + path,
            "name": path,
            "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}],
        }
        for path, (content, _mode) in sorted(members.items())
        if content is not None
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": "urn:uuid:%s" % uuid.uuid5(uuid.NAMESPACE_URL, "sha256:" + digest),
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)),
            "component": {
                "type": "library",
                "bom-ref": own,
                "group": about["namespace"],
                "name": about["name"],
                "version": about["version"],
                "description": about["description"],
                "licenses": [{"license": {"id": licence}} for licence in about["license"]],
                "hashes": [{"alg": "SHA-256", "content": digest}],
            },
        },
        "components": libraries + files,
        "dependencies": [{"ref": own, "dependsOn": [library for library, _licence, _where in _LIBRARIES]}],
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode("utf-8")


def main(source: Path, folder: Path) -> None:
    """Write both files, and say which."""
    at = int(os.environ["SOURCE_DATE_EPOCH"])
    members = read(source)
    in_order(members)
    archive = pack(members, at)
    listed = _json(bill(members, archive, at))
    wrong = JsonStrictValidator(SchemaVersion.V1_5).validate_str(listed.decode("utf-8"))
    if wrong:
        sys.exit("the bill of materials is not what CycloneDX 1.5 asks for: %s" % wrong)
    for name, raw in (
        (source.name, archive),
        (source.name.replace(".tar.gz", ".cdx.json"), listed),
    ):
        (folder / name).write_bytes(raw)
        print("%s  %s" % (hashlib.sha256(raw).hexdigest(), folder / name))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
