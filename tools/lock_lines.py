# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""From folders of wheels to the lines of a file of requirements: what `tools/lock` needs of Python.

--names FOLDER              NAME==VERSION of each wheel there
--lock PINS FOLDER...       the same, with the digests of all wheels of that version in any of the folders
"""

from __future__ import annotations

import email.parser
import hashlib
import re
import sys
import zipfile
from pathlib import Path


def named(wheel: Path) -> tuple[str, str]:
    """Name, as packages are compared by, and version of a wheel, from its own METADATA."""
    with zipfile.ZipFile(wheel) as archive:
        inside = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        about = email.parser.Parser().parsestr(archive.read(inside).decode("utf-8"))
    return re.sub(r"[-_.]+", "-", about["Name"]).lower(), about["Version"]


def digests(folders: list[Path]) -> dict[tuple[str, str], set[str]]:
    """The digests of all wheels in some folders, by name and version."""
    found: dict[tuple[str, str], set[str]] = {}
    for folder in folders:
        for wheel in sorted(folder.glob("*.whl")):
            found.setdefault(named(wheel), set()).add(hashlib.sha256(wheel.read_bytes()).hexdigest())
    return found


def main(words: list[str]) -> None:
    """Write the lines to standard output."""
    if words[0] == "--names":
        for name, version in sorted(digests([Path(words[1])])):
            print("%s==%s" % (name, version))
        return
    print("# Made by tools/lock from %s; tools/venv installs it with --require-hashes." % words[1])
    for (name, version), found in sorted(digests([Path(word) for word in words[2:]]).items()):
        print(" \\\n    ".join(["%s==%s" % (name, version), *("--hash=sha256:" + one for one in sorted(found))]))


if __name__ == "__main__":
    main(sys.argv[1:])
