# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""One noted call of a compiler: what it reads, what it makes, and how to ask the same for something else.

The options are those of GCC (its manual, "Option Summary"), which clang took over.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from typing import Any

# The variables that change what a compiler makes (GCC manual, "Environment Variables Affecting GCC").
HEEDED = (
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "COMPILER_PATH",
    "LIBRARY_PATH",
    "GCC_EXEC_PREFIX",
    "SOURCE_DATE_EPOCH",
)

# Options whose argument is the next word.
_WITH_ARGUMENT = frozenset(
    [
        "-o",
        "-I",
        "-D",
        "-U",
        "-L",
        "-l",
        "-include",
        "-imacros",
        "-isystem",
        "-iquote",
        "-idirafter",
        "-iprefix",
        "-iwithprefix",
        "-iwithprefixbefore",
        "-isysroot",
        "-MF",
        "-MT",
        "-MQ",
        "-x",
        "-Xlinker",
        "-Xassembler",
        "-Xpreprocessor",
        "-Xclang",
        "-T",
        "-u",
        "-z",
        "-e",
        "-h",
        "-A",
        "-B",
        "-wrapper",
        "-specs",
        "--param",
        "-target",
        "-arch",
        "-aux-info",
        "-dumpdir",
        "-dumpbase",
        "-dumpbase-ext",
        "-mllvm",
        "--sysroot",
        "-soname",
        "-rpath",
        "-Ttext",
        "-imultilib",
        "-G",
    ]
)
# Options that only say where else to write something: dependency files, temporary files.
_WRITES = re.compile(r"-(M|MM|MD|MMD|MG|MP|MV)$|-save-temps.*|-fstack-usage$|-fdump-.*|-gsplit-dwarf$|--coverage$")
_SOURCE = re.compile(r"\.(c|cc|cp|cxx|cpp|CPP|c\+\+|C|i|ii|s|S|sx|m|mm)$")
_CPLUSPLUS = re.compile(r"\.(cc|cp|cxx|cpp|CPP|c\+\+|C|ii|mm)$")
_ASSEMBLER = re.compile(r"\.(s|S|sx)$")


def is_cplusplus(path: str) -> bool:
    """True for the name of a C++ file."""
    return bool(_CPLUSPLUS.search(path))


def is_assembler(path: str) -> bool:
    """True for the name of an assembler file."""
    return bool(_ASSEMBLER.search(path))


@dataclass(frozen=True)
class CompileCommand:
    """One noted call: `order` counts the calls of a build, `folder` is where it ran, `compiler` the real program.

    `settings`: those of the variables HEEDED that were set.
    """

    order: int
    folder: str
    compiler: str
    arguments: tuple[str, ...]
    settings: tuple[tuple[str, str], ...] = ()

    def as_row(self) -> list[object]:
        """The call as JSON keeps it."""
        return [self.order, self.folder, self.compiler, self.arguments, self.settings]

    @staticmethod
    def from_row(row: list[Any]) -> CompileCommand:
        """The call that was kept as `as_row` gave it."""
        settings = tuple((name, value) for name, value in row[4])
        return CompileCommand(row[0], row[1], row[2], tuple(row[3]), settings)

    def environment(self) -> dict[str, str]:
        """The environment for doing it again; without a fixed date two compilations would differ by the time of day."""
        plain = {name: value for name, value in os.environ.items() if name not in HEEDED}
        return {**plain, "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0", **dict(self.settings)}

    def words(self) -> list[str]:
        """The arguments with every @file replaced by what it holds."""
        return _expanded(self.arguments, self.folder, 0)

    def stage(self) -> str:
        """ "link", "object" (-c), or "other" (preprocessing, questions such as --version)."""
        words = self.words()
        if any(word in ("-E", "-S", "-M", "-MM", "-fsyntax-only", "-###") for word in words):
            return "other"
        if "-c" in words:
            return "object"
        return "link" if self.inputs() else "other"

    def inputs(self) -> list[str]:
        """The input files and -l options in order, as written."""
        found, words, at = [], self.words(), 0
        while at < len(words):
            word = words[at]
            if word == "-l" and at + 1 < len(words):
                found.append("-l" + words[at + 1])
            elif (word.startswith("-l") and len(word) > 2) or not word.startswith("-"):
                found.append(word)
            at += 2 if word in _WITH_ARGUMENT else 1
        return found

    def sources(self) -> list[str]:
        """The source files among the inputs, as written."""
        return [word for word in self.inputs() if _SOURCE.search(word)]

    def values(self, option: str) -> list[str]:
        """The arguments of every occurrence of an option such as -o or -L, joined to it or not."""
        found, words, at = [], self.words(), 0
        while at < len(words):
            word = words[at]
            if word == option and at + 1 < len(words):
                found.append(words[at + 1])
            elif word.startswith(option) and word != option and not word.startswith("--"):
                found.append(word[len(option) :])
            at += 2 if word in _WITH_ARGUMENT else 1
        return found

    def output(self) -> str:
        """The absolute path of the file the call makes."""
        words = self.words()
        named = [words[at + 1] for at, word in enumerate(words[:-1]) if word == "-o"]
        named += [word[2:] for word in words if word.startswith("-o") and len(word) > 2]
        if named:
            return self.path(named[-1])
        sources = self.sources()
        if self.stage() == "object" and sources:
            return self.path(os.path.splitext(os.path.basename(sources[0]))[0] + ".o")
        return self.path("a.out")

    def path(self, word: str) -> str:
        """A path as the call means it."""
        return os.path.normpath(os.path.join(self.folder, word))

    def uses_lto(self) -> bool:
        """True when the call asks for link-time optimisation."""
        flags = [word for word in self.words() if word.startswith("-flto") or word == "-fno-lto"]
        return bool(flags) and flags[-1] != "-fno-lto"

    def for_source(self, source: str, options: list[str]) -> list[str]:
        """The command line that compiles only `source` (as written) with these options more, and writes nothing else.

        Outputs and dependency files are left out: `options` says what is made (-c -o FILE, -M ...).
        """
        kept, words, at = [], self.words(), 0
        inputs = set(self.inputs())
        while at < len(words):
            word = words[at]
            step = 2 if word in _WITH_ARGUMENT else 1
            leave_out = (
                word in ("-c", "-o", "-MF", "-MT", "-MQ", "-l", "-Xlinker", "-T", "-u", "-z", "-L")
                or word in inputs
                or _WRITES.match(word)
                or re.match(r"-(o|MF|MT|MQ|L).|-Wl,|-Wp,-M", word)
            )
            if not leave_out:
                kept += words[at : at + step]
            at += step
        return [self.compiler, *kept, *options, source]


def _expanded(arguments: tuple[str, ...] | list[str], folder: str, depth: int) -> list[str]:
    words: list[str] = []
    for word in arguments:
        path = os.path.join(folder, word[1:]) if word.startswith("@") else ""
        if path and depth < 8 and os.path.isfile(path):
            with open(path, encoding="utf-8", errors="surrogateescape") as stream:
                words += _expanded(shlex.split(stream.read()), folder, depth + 1)
        else:
            words.append(word)
    return words
