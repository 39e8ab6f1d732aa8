# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""From the link that made an artifact to the units it is made of: which source, compiled how, into which object.

A source may be compiled several times for several artifacts; only what this link took in counts. Members of static
libraries are recognised by their content among the objects that the build compiled.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from .._errors import LivepatchError
from .compile_command import CompileCommand


@dataclass(frozen=True)
class Unit:
    """One compiled source of the artifact. `source` is absolute; `word` is how the command names it.

    `content` is the relocatable object as it was linked, None where the compiler kept none (cc a.c b.c -o prog).
    """

    source: str
    word: str
    command: CompileCommand
    object_name: str
    content: bytes | None


def find_link(calls: list[CompileCommand], artifact: str) -> CompileCommand:
    """The last noted link whose result is the artifact (an absolute path), or was copied to it.

    Raises LivepatchError build_failed when no such link was noted.
    """
    links = [call for call in calls if call.stage() == "link"]
    real = os.path.realpath(artifact)
    for call in reversed(links):
        if os.path.realpath(call.output()) == real:
            return call
    digest = _digest(_read(real))
    for call in reversed(links):
        output = call.output()
        if os.path.isfile(output) and _digest(_read(output)) == digest:
            return call
    raise LivepatchError(
        "build_failed",
        "the build made %s, but no noted compiler call linked it (noted links: %s)"
        % (artifact, ", ".join(sorted({os.path.basename(call.output()) for call in links})) or "none"),
        "Give as 'artifact' the file that the compiler links, unstripped; a link by calling 'ld' itself is not seen.",
    )


def linked_units(calls: list[CompileCommand], link: CompileCommand) -> list[Unit]:
    """The units of a link in link order, those of archives after where the archive stands."""
    return _Units(calls).of_link(link, 0)


class _Units:
    def __init__(self, calls: list[CompileCommand]) -> None:
        self.objects: dict[str, list[CompileCommand]] = {}
        self.partial_links: dict[str, list[CompileCommand]] = {}
        for call in calls:
            stage = call.stage()
            if stage == "object":
                for output in _outputs(call):
                    self.objects.setdefault(os.path.realpath(output), []).append(call)
            elif stage == "link" and any(word in ("-r", "-Wl,-r", "--relocatable") for word in call.words()):
                self.partial_links.setdefault(os.path.realpath(call.output()), []).append(call)
        self._by_digest: dict[str, tuple[CompileCommand, str]] | None = None

    def of_link(self, link: CompileCommand, depth: int) -> list[Unit]:
        units: list[Unit] = []
        sources = set(link.sources())
        folders = [link.path(word) for word in link.values("-L")]
        for word in link.inputs():
            if word in sources:
                units.append(Unit(link.path(word), word, link, word, None))
                continue
            path = _library(word[2:], folders) if word.startswith("-l") else link.path(word)
            if not path or not os.path.isfile(path):
                continue
            real = os.path.realpath(path)
            partial = [call for call in self.partial_links.get(real, []) if call.order < link.order]
            if partial and depth < 8:
                units += self.of_link(partial[-1], depth + 1)
            elif real.endswith(".a"):
                for name, content in archive_members(real):
                    units += self._of_object("%s(%s)" % (path, name), content)
            elif real in self.objects:
                call = [c for c in self.objects[real] if c.order < link.order] or self.objects[real]
                units += _unit(call[-1], path, _read(real), real)
            elif _read(real)[:4] == b"\x7fELF" and not real.split(".so")[1:]:
                units += self._of_object(path, _read(real))
        return units

    def _of_object(self, name: str, content: bytes) -> list[Unit]:
        """The unit of an object that was copied or put into an archive, by its content."""
        if self._by_digest is None:
            self._by_digest = {}
            for path, calls in self.objects.items():
                if os.path.isfile(path):
                    self._by_digest[_digest(_read(path))] = (calls[-1], path)
        found = self._by_digest.get(_digest(content))
        return _unit(found[0], name, content, found[1]) if found else []


def _outputs(call: CompileCommand) -> list[str]:
    sources = call.sources()
    if len(sources) < 2:
        return [call.output()]
    return [call.path(os.path.splitext(os.path.basename(source))[0] + ".o") for source in sources]


def _unit(call: CompileCommand, name: str, content: bytes, output: str) -> list[Unit]:
    for source, made in zip(call.sources(), _outputs(call)):
        if os.path.realpath(made) == os.path.realpath(output):
            return [Unit(call.path(source), source, call, name, content)]
    return []


def _library(name: str, folders: list[str]) -> str:
    """The static library that -l means, "" for a shared one or one from outside the build."""
    for folder in folders:
        if name.startswith(":"):
            return os.path.join(folder, name[1:])
        if os.path.exists(os.path.join(folder, "lib%s.so" % name)):
            return ""
        if os.path.exists(os.path.join(folder, "lib%s.a" % name)):
            return os.path.join(folder, "lib%s.a" % name)
    return ""


def archive_members(path: str) -> list[tuple[str, bytes]]:
    """Names and contents of the objects in a static library, thin or not (ar(5); GNU long names)."""
    raw = _read(path)
    thin = raw[:8] == b"!<thin>\n"
    if not thin and raw[:8] != b"!<arch>\n":
        return []
    members, at, long_names = [], 8, b""
    while at + 60 <= len(raw):
        field = raw[at : at + 16].rstrip(b" ")
        size = int(raw[at + 48 : at + 58].strip() or b"0")
        at += 60
        special = field in (b"/", b"//", b"/SYM64/")
        content = raw[at : at + size] if special or not thin else b""
        if field == b"//":
            long_names = content
        elif not special:
            if field[:1] == b"/" and field[1:].isdigit():
                start = int(field[1:])
                field = long_names[start : long_names.find(b"\n", start)]
            name = field.rstrip(b"/").decode("utf-8", "surrogateescape")
            if thin:
                content = _read(os.path.join(os.path.dirname(path), name))
            members.append((name, content))
        at += len(content) + (len(content) & 1) if special or not thin else 0
    return members


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
