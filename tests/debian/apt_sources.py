# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The apt sources that the machine has for its own release, in either of apt's formats (sources.list(5))."""

from __future__ import annotations

import os
import re


def machine_sources() -> dict[str, str]:
    """The machine's apt sources for its own release, by file name, with source packages asked for as well."""
    with open("/etc/os-release", encoding="utf-8") as stream:
        codename = dict(re.findall(r'(?m)^(\w+)="?([^"\n]*)"?$', stream.read())).get("VERSION_CODENAME", "")
    of_release = re.compile(rf"(^|\s){re.escape(codename)}(-\S+)?(\s|$)")
    paths = ["/etc/apt/sources.list"]
    parts = "/etc/apt/sources.list.d"
    paths += [os.path.join(parts, n) for n in sorted(os.listdir(parts)) if n.endswith((".list", ".sources"))]
    copied = {}
    for path in filter(os.path.exists, paths):
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
        if path.endswith(".sources"):
            stanzas = [s for s in re.split(r"\n\s*\n", text) if re.search(r"(?m)^Types:.*\bdeb\b", s)]
            kept = [s for s in stanzas if any(of_release.search(v) for v in re.findall(r"(?m)^Suites:(.*)$", s))]
            lines = [re.sub(r"(?m)^Types:.*$", "Types: deb deb-src", s.strip()) + "\n" for s in kept]
        else:
            kept = [line for line in re.findall(r"^deb\s.*$", text, re.MULTILINE) if of_release.search(line)]
            lines = [line + "\n" + re.sub(r"^deb", "deb-src", line) for line in kept]
        if lines:
            copied[os.path.basename(path)] = "\n".join(lines) + "\n"
    return copied
