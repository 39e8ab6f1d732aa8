# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs and patches for the tests of the engine, compiled here and now; no builder is involved.

A patch is made from a C file with the new functions: compiled, and given a manifest whose offsets come from `nm`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import mmap
import re
import subprocess
from pathlib import Path
from typing import Any

from module_utils._elf.build_id import file_build_id
from module_utils._elf.header import parse_header
from module_utils._patch.content import Patch
from module_utils._patch.manifest import BoundObject, Manifest, Reference, ReplacedFunction
from module_utils._patch.reader import read_patch_file
from module_utils._patch.seal import sealed


def run(*command: str) -> str:
    """The output of a command that must succeed."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def compile_program(folder: Path, name: str, source: str, *flags: str) -> Path:
    """A program (or, with -shared, a library) from C source text, with a build-id and symbols."""
    path = folder / name
    (folder / (name + ".c")).write_text(source)
    run("gcc", "-O2", "-g", "-Wl,--build-id", "-o", str(path), str(folder / (name + ".c")), "-pthread", *flags)
    return path


def symbols(path: Path) -> dict[str, tuple[int, int]]:
    """Address and size of the defined symbols of an object."""
    found = {}
    for line in run("nm", "-S", "--defined-only", str(path)).splitlines():
        fields = line.split()
        if len(fields) == 4:
            found[fields[3]] = (int(fields[0], 16), int(fields[1], 16))
    return found


def object_bytes(path: Path, address: int, size: int) -> bytes:
    """Bytes of an object at a link-time address, fewer where its segment ends."""
    raw = path.read_bytes()
    for segment in parse_header(lambda at, count: raw[at : at + count]).loads():
        if segment.holds(address, 1):
            return raw[segment.offset : segment.offset + segment.file_size][address - segment.address :][:size]
    raise ValueError("%#x is not in %s" % (address, path))


def make_patch(
    folder: Path, target: Path, source: str, replaced: list[str], patch_id: str = "fix", **manifest: Any
) -> Patch:
    """A patch that replaces functions of `target` by those of the same name in `source`."""
    code = folder / (patch_id + ".patch.c")
    code.write_text(source)
    made = folder / (patch_id + ".o")
    run(
        "gcc",
        "-O2",
        "-c",
        "-fPIC",
        "-fvisibility=hidden",
        "-fno-asynchronous-unwind-tables",
        "-ffunction-sections",
        "-o",
        str(made),
        str(code),
    )
    undefined = run("nm", "-u", str(made)).split()[1::2]
    new = symbols(made)
    there = symbols(target)
    functions = []
    for name in replaced:
        offset, size = there[name]
        overwritable = int(str(manifest.get("overwritable", min(size, 16))))
        functions.append(
            ReplacedFunction(
                name=name,
                offset=offset,
                size=size,
                sha256=hashlib.sha256(object_bytes(target, offset, size)).hexdigest(),
                entry=object_bytes(target, offset, 16).hex(),
                overwritable=overwritable,
                symbol=name,
                new_size=new[name][1],
                arguments=int(str(manifest.get("arguments", 6))),
            )
        )
    references = tuple(
        Reference(name, "object", name, offset=there[name][0]) if name in there else Reference(name, "external", name)
        for name in undefined
        if name != "_GLOBAL_OFFSET_TABLE_"
    )
    build_id = file_build_id(str(target))
    assert build_id
    plain = Manifest(
        id=patch_id,
        version="1",
        object=BoundObject(target.name, build_id, "x86_64"),
        functions=tuple(functions),
        references=references,
    )
    others = {key: value for key, value in manifest.items() if key not in ("overwritable", "arguments")}
    plain = dataclasses.replace(plain, **others)
    (folder / "manifest.json").write_bytes(plain.to_json())
    patch = folder / (patch_id + ".lpatch")
    run("objcopy", "--add-section", ".livepatch=%s" % (folder / "manifest.json"), str(made), str(patch))
    patch.write_bytes(sealed(patch.read_bytes()))
    return read_patch_file(str(patch))


def shared(count: int) -> memoryview:
    """As many whole numbers, 0 at first, that this process and the children it makes from now on have in common."""
    return memoryview(mmap.mmap(-1, 8 * count)).cast("q")


class Running:
    """A program that writes one line per question on its standard input, or on its own; ended when the block ends."""

    def __init__(self, path: Path, *arguments: str, **options: object) -> None:
        self._process = subprocess.Popen(
            [str(path), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            **options,  # type: ignore[call-overload]
        )
        self.pid: int = self._process.pid
        assert self.line() == "ready"

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def line(self) -> str:
        """The next line of its output."""
        return str(self._process.stdout.readline()).strip()

    def ask(self, question: str) -> str:
        """The line it answers to a line."""
        self.send(question)
        return self.line()

    def send(self, question: str) -> None:
        """Give it a line, and wait for nothing."""
        self._process.stdin.write(question + "\n")

    def alive(self) -> bool:
        """True while it runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def ended(self) -> int:
        """Close its input and wait for its end; the exit status."""
        self._process.stdin.close()
        return int(self._process.wait(timeout=10))


def livepatch_mappings(pid: int) -> list[str]:
    """The lines of /proc/PID/maps that name a patch."""
    return re.findall(r".*livepatch:.*", Path("/proc/%d/maps" % pid).read_text())
