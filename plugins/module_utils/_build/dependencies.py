# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Which files a unit is made of: the compiler is asked (-M), not its sources guessed at."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from .link_inputs import Unit
from .run_compiler import in_parallel, run_compiler
from .watch_build import Progress

_WORD = re.compile(r"((?:\\[ #\\\n]|\$\$|[^\s\\]|\\(?=[^ #\\\n]))+)")


@dataclass(frozen=True)
class FilesRead:
    """The files that a unit reads, sorted: `inside` the tree, relative to it, and `outside` of it, absolute."""

    inside: tuple[str, ...]
    outside: tuple[str, ...]


def files_read(units: list[Unit], tree: str, progress: Progress | None = None) -> list[FilesRead]:
    """What each unit reads. One whose command cannot be asked (an assembler file that needs no preprocessor) reads its
    source.
    """
    real = os.path.realpath(tree) + os.sep
    resolved: dict[str, str] = {}  # the same headers come again and again

    def path_of(folder: str, word: str) -> str:
        path = os.path.join(folder, word)
        known = resolved.get(path)
        if known is None:
            known = resolved[path] = os.path.realpath(path)
        return known

    def ask(unit: Unit) -> FilesRead:
        status, rule = run_compiler(unit, ["-M"], False)
        words = make_rule_words(rule.decode("utf-8", "surrogateescape")) if status == 0 else []
        paths = {path_of(unit.command.folder, word) for word in [*words, unit.source]}
        inside = tuple(sorted(path[len(real) :] for path in paths if path.startswith(real)))
        return FilesRead(inside, tuple(sorted(path for path in paths if not path.startswith(real))))

    return in_parallel(ask, units, "units asked what they read", progress)


def make_rule_words(rule: str) -> list[str]:
    """The prerequisites of a make rule as -M writes it."""
    text = rule.split(":", 1)[1] if ":" in rule else ""
    words = _WORD.findall(text.replace("\\\n", " "))
    return [re.sub(r"\\([ #\\])", r"\1", word).replace("$$", "$") for word in words]
