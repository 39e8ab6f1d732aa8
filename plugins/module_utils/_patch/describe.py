# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a patch does, for people: each function, its sizes, what its new code refers to. Read from the patch alone.

Also a command: PYTHONPATH=plugins python3 -m module_utils._patch.describe FILE...
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Iterator

from .._errors import LivepatchError
from .content import TEXT, Patch, Relocation, Symbol, is_branch_field
from .reader import read_patch_file


def describe(patch: Patch) -> dict[str, Any]:
    """Everything about a patch but its code, in plain values.

    `functions` [{name, size_old, size_new (bytes), calls, uses, imports, brings}]: the names of the object's functions
    that the new code calls or jumps to; of the object's variables, tables and functions whose address it uses; of what
    it takes from other objects of the process; and of what only the patch has. A function's own strings, tables and
    cold part belong to it. `data` [{name, old, new}]: values that are written, hexadecimal.
    """
    manifest = patch.manifest
    return {
        "id": manifest.id,
        "version": manifest.version,
        "description": manifest.description,
        "cves": list(manifest.cves),
        "requires": list(manifest.requires),
        "replaces": list(manifest.replaces),
        "object": manifest.object.name,
        "build_id": manifest.object.build_id,
        "arch": manifest.object.arch,
        "consistency": manifest.consistency,
        "functions": [
            {"name": f.name, "size_old": f.size, "size_new": f.new_size, **_refers(patch, f.symbol)}
            for f in manifest.functions
        ],
        "data": [{"name": v.name, "old": v.old, "new": v.new} for v in manifest.data],
        "new_symbols": list(manifest.new_symbols),
        "externals": sorted({r.name for r in manifest.references if r.is_outside}),
        "built": dict(manifest.built),
    }


def _refers(patch: Patch, function: str) -> dict[str, list[str]]:
    """What the code of a function refers to, and what its own strings, tables and cold part do."""
    manifest = patch.manifest
    references = {one.symbol: one for one in manifest.references}
    symbols = {symbol.name: symbol for symbol in patch.symbols}
    replaced = {one.symbol: one.name for one in manifest.functions}
    found: dict[str, set[str]] = {"calls": set(), "uses": set(), "imports": set(), "brings": set()}
    waiting, seen = [function], {function}
    while waiting:
        for relocation in _within(patch, symbols[waiting.pop()]):
            name = relocation.symbol
            reference = references.get(name)
            section = patch.sections[relocation.section]
            is_call = section.kind == TEXT and is_branch_field(section.content, relocation.offset)
            kind = "calls" if is_call else "uses"
            if reference is not None:
                found["imports" if reference.is_outside else kind].add(reference.name)
            elif name in replaced:
                if name != function:
                    found[kind].add(replaced[name])
            elif name in manifest.new_symbols:
                found["brings"].add(name)
            elif name not in seen:
                seen.add(name)
                waiting.append(name)
    return {key: sorted(rows) for key, rows in found.items()}


def _within(patch: Patch, symbol: Symbol) -> Iterator[Relocation]:
    for relocation in patch.relocations:
        if relocation.section == symbol.section and 0 <= relocation.offset - symbol.offset < symbol.size:
            yield relocation


def as_text(patch: Patch) -> str:
    """The same as lines to read."""
    told = describe(patch)
    lines = ["%s version %s" % (told["id"], told["version"])]
    if told["description"]:
        lines.append("  %s" % told["description"])
    lines.append("  for %s (%s, build-id %s)" % (told["object"], told["arch"], told["build_id"]))
    lines.append("  consistency %s" % told["consistency"])
    lines += ["  %s %s" % (key, ", ".join(told[key])) for key in ("cves", "requires", "replaces") if told[key]]
    for function in told["functions"]:
        lines.append("  function %(name)s: %(size_old)d bytes become %(size_new)d" % function)
        for key in ("calls", "uses", "imports", "brings"):
            if function[key]:
                lines.append("    %s %s" % (key, ", ".join(function[key])))
    lines += ["  value %(name)s: %(old)s becomes %(new)s" % value for value in told["data"]]
    if told["new_symbols"]:
        lines.append("  new %s" % ", ".join(told["new_symbols"]))
    lines += ["  built: %s %s" % row for row in sorted(told["built"].items())]
    lines.append("  sha256 %s" % patch.sha256)
    return "\n".join(lines) + "\n"


def main() -> int:
    """Describe patch files; 1 when one of them cannot be read."""
    parser = argparse.ArgumentParser(description="Say what patch files do.")
    parser.add_argument("file", nargs="+")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    given = parser.parse_args()
    status = 0
    for path in given.file:
        try:
            patch = read_patch_file(path)
        except (LivepatchError, OSError) as error:
            sys.stderr.write("%s: %s\n" % (path, error))
            status = 1
            continue
        told = json.dumps(dict(describe(patch), sha256=patch.sha256), sort_keys=True) + "\n"
        sys.stdout.write(told if given.json else as_text(patch))
    return status


if __name__ == "__main__":
    raise SystemExit(main())
