# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Seeds from our own sources: a library compiled here and now, a patch for it, and what a process would say of it."""

from __future__ import annotations

import sys
from pathlib import Path

_UNIT = Path(__file__).resolve().parents[1] / "unit"
sys.path += [str(_UNIT / "engine")]

from patching import compile_program, make_patch  # noqa: E402

from module_utils._elf.header import parse_header  # noqa: E402
from module_utils._engine.region import LOADED, Mutable, Region, Site, describe  # noqa: E402
from module_utils._patch.seal import unsealed  # noqa: E402

LIBRARY = """
#include <string.h>
int counted = 3;
__attribute__((noinline)) int helper(int x) { return x + counted; }
__attribute__((noinline)) int answer(const char *text) { return helper(*text) + (int)strlen(text); }
"""
FIXED = """
#include <string.h>
extern int helper(int);
static int calls = 1, unused_yet[4];
static const char *const names[] = {"one", "two"};
int answer(const char *text) {
    calls++;
    unused_yet[calls & 3]++;
    return helper((int)strlen(text)) + !strcmp(text, names[calls & 1]);
}
"""
_MAPS = """\
00400000-00401000 r-xp 00000000 fe:00 1234 /usr/bin/a b (deleted)
7f0000000000-7f0000001000 rw-p 00000000 00:01 5 /memfd:livepatch:fix (deleted)
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0 [stack]
"""


def _in_memory(raw: bytes) -> bytes:
    """An object as it lies in memory."""
    segments = parse_header(lambda at, size: raw[at : at + size]).loads()
    image = bytearray(max(segment.address + segment.size for segment in segments))
    for segment in segments:
        content = raw[segment.offset : segment.offset + segment.file_size]
        image[segment.address : segment.address + len(content)] = content
    return bytes(image)


def seeds(folder: Path) -> dict[str, list[bytes]]:
    """Good inputs for every target."""
    (folder / "versions").write_text("V_1 { global: answer; counted; local: *; };")
    library = compile_program(
        folder,
        "lib.so",
        LIBRARY,
        "-shared",
        "-fPIC",
        "-nostartfiles",
        "-s",
        "-Wl,-z,max-page-size=64,-z,noseparate-code,--hash-style=gnu,-soname=lib.so",
        "-Wl,--version-script=%s" % (folder / "versions"),
    )
    plain = compile_program(folder, "plain.so", LIBRARY, "-shared", "-fPIC")
    patch = make_patch(folder, plain, FIXED, ["answer"])
    small = make_patch(folder, plain, "int answer(const char *text) { return *text; }", ["answer"], "small")
    region = Region(
        address=0x400000,
        mutable=Mutable(LOADED, "none", 1, 0, 0),
        id="fix",
        version="1",
        sha256="00",
        patch={
            "description": "",
            "cves": ["CVE-1"],
            "requires": [],
            "replaces": ["a"],
            "consistency": "entry",
            "build_id": "00",
        },
        object_path="/bin/true",
        object_start=0x500000,
        sites=(Site("one", "byte", 0x500100, b"\x55", b"\xe9", 0x500100, 0x410100),),
        parts=((0x400000, 4096, 1), (0x401000, 4096, 5)),
        digests=((0x400000, 4096, "00"),),
        replaced=((0x500101, 0x500110),),
        uses=((0x600000, "fe:00:7:0x0"),),
        frames=(1, 2, 3, 4),
    )
    return {
        "patch": [unsealed((folder / name).read_bytes()) for name in ("fix.lpatch", "small.lpatch")],
        "manifest": [patch.manifest.to_json(), small.manifest.to_json()],
        "objects": [_in_memory(library.read_bytes())],
        "region": [describe(region)],
        "maps": [_MAPS.encode()],
    }
