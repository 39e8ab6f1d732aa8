# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of the machine's own Debian archive, by version and digest, without touching the machine's apt.

apt runs with lists, cache and sources of its own; the sources are those of the machine for its release, with
`deb-src` added. What was fetched stays in the cache by its SHA-256, so that a second run needs no network.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import subprocess

from .apt_sources import machine_sources

SOURCE = "source"
BINARY = "binary"


class ProofError(Exception):
    """The proof cannot be prepared; the text says why and what to do."""


class VanishedError(ProofError):
    """The archive does not offer this version (any more)."""


@dataclasses.dataclass(frozen=True)
class ArchiveFile:
    """One file as the archive's signed index names it."""

    uri: str
    name: str
    sha256: str


class Archive:
    """What the machine's archive offers; `gone` are versions to be asked for in vain (for tests)."""

    def __init__(self, cache: str, gone: frozenset[str] = frozenset()) -> None:
        self._files = os.path.join(cache, "files")
        self._record = os.path.join(cache, "archive.json")
        self._apt = os.path.join(cache, "apt")
        self._gone = gone
        self._updated = False

    def fetch(self, kind: str, package: str, version: str) -> list[str]:
        """The paths of a binary package's .deb, or of a source package's files (.dsc among them).

        Raises VanishedError when the archive's index does not have the version, ProofError when it cannot be
        read.
        """
        if version in self._gone:
            raise VanishedError(f"{package} {version} is treated as gone, as asked.")
        key = f"{kind} {package} {version}"
        record = self._read_record()
        if not (key in record and all(self._is_cached(file) for file in record[key])):
            record[key] = self._look_up(kind, package, version)
            for file in record[key]:
                self._fetch_file(package, file)
            self._write_record(record)
        return [self._path(file) for file in record[key]]

    def source_versions(self, package: str) -> list[str]:
        """The versions of a source package, newest first."""
        self._update()
        shown = self._run("apt-cache", "showsrc", "--only-source", package).stdout
        versions = {v for v in re.findall(r"^Version: (\S+)$", shown, re.MULTILINE) if v not in self._gone}
        # apt lists nothing in order of versions by itself; dpkg knows the order.
        newest_first: list[str] = []
        for version in versions:
            older = [v for v in newest_first if _is_newer(version, v)]
            newest_first.insert(newest_first.index(older[0]) if older else len(newest_first), version)
        return newest_first

    def _look_up(self, kind: str, package: str, version: str) -> list[ArchiveFile]:
        self._update()
        wanted = f"{package}={version}"
        command = ["apt-get", "download", "--print-uris", wanted]
        if kind == SOURCE:
            command = ["apt-get", "source", "--download-only", "--print-uris", wanted]
        answer = self._run(*command, check=False)
        if answer.returncode and re.search("not found|find version|find a source", answer.stderr):
            raise VanishedError(
                f"The archive of this machine's apt sources does not offer {package} {version}: {answer.stderr.strip()}"
            )
        if answer.returncode:
            raise ProofError(f"{' '.join(command)} failed: {answer.stderr.strip()}")
        found = re.findall(r"^'(\S+)' (\S+) \d+ SHA256:([0-9a-f]{64})$", answer.stdout, re.MULTILINE)
        if not found:
            raise ProofError(f"{' '.join(command)} named no file with a SHA-256: {answer.stdout.strip()}")
        return [ArchiveFile(*fields) for fields in found]

    def _path(self, file: ArchiveFile) -> str:
        return os.path.join(self._files, file.sha256, file.name)

    def _is_cached(self, file: ArchiveFile) -> bool:
        return os.path.exists(self._path(file)) and _sha256(self._path(file)) == file.sha256

    def _fetch_file(self, package: str, file: ArchiveFile) -> None:
        os.makedirs(os.path.dirname(self._path(file)), exist_ok=True)
        errors = []
        for uri in [file.uri, *self._elsewhere(file.uri)]:
            helper = (
                "/usr/lib/apt/apt-helper",
                "download-file",
                uri,
                self._path(file),
                f"SHA256:{file.sha256}",
            )
            got = self._run(*helper, check=False)
            if got.returncode == 0 and self._is_cached(file):
                return
            errors.append(got.stderr.strip())
        raise ProofError(
            f"{file.name} of {package} could not be fetched from any of the machine's archives: {'; '.join(errors)}"
        )

    def _elsewhere(self, uri: str) -> list[str]:
        """The same file in every archive's main pool: some security updates are served only from there."""
        bases = self._run("apt-get", "indextargets", "--format", "$(REPO_URI)").stdout.split()
        in_pool = re.sub(r"^.*/pool/(updates/)?", "pool/", uri)
        return [base + in_pool for base in sorted(set(bases)) if base + in_pool != uri]

    def _update(self) -> None:
        """Read the archive's index once; the machine's own lists stay as they are."""
        if self._updated:
            return
        for directory in ("sources", "lists/partial", "cache/archives/partial"):
            os.makedirs(os.path.join(self._apt, directory), exist_ok=True)
        sources = os.path.join(self._apt, "sources")
        for name in os.listdir(sources):
            os.unlink(os.path.join(sources, name))
        copied = machine_sources()
        if not copied:
            raise ProofError(
                "The machine's apt sources name no archive of its own release. This proof takes its programs from"
                " Debian 12's archive: run it where that is configured."
            )
        for name, text in copied.items():
            _write(os.path.join(sources, name), text)
        _write(
            self._apt_conf(),
            f'Dir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "{sources}";\n'
            f'Dir::State::lists "{self._apt}/lists";\nDir::Cache "{self._apt}/cache";\n'
            # The cache may lie where apt's own user cannot write.
            + ('APT::Sandbox::User "root";\n' if os.geteuid() == 0 else ""),
        )
        self._run("apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any")
        self._updated = True

    def _apt_conf(self) -> str:
        return os.path.join(self._apt, "apt.conf")

    def _run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "APT_CONFIG": self._apt_conf()}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise ProofError(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()}")
        return done

    def _read_record(self) -> dict[str, list[ArchiveFile]]:
        if not os.path.exists(self._record):
            return {}
        with open(self._record, encoding="utf-8") as stream:
            return {key: [ArchiveFile(**file) for file in files] for key, files in json.load(stream).items()}

    def _write_record(self, record: dict[str, list[ArchiveFile]]) -> None:
        plain = {key: [dataclasses.asdict(file) for file in files] for key, files in record.items()}
        _write(self._record, json.dumps(plain, indent=1, sort_keys=True))


def _is_newer(version: str, other: str) -> bool:
    return subprocess.run(["dpkg", "--compare-versions", version, "gt", other], check=False).returncode == 0


def _sha256(path: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.sha256(stream.read()).hexdigest()


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
