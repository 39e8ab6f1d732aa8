# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What is asked of the builder, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from .._errors import REMEDIES, LivepatchError
from .._patch.content import Patch


@dataclass(frozen=True)
class BuildRequest:
    """One patch to build; the names are those of the module livepatch_build.

    `source`, `diff`, `new_source` and `target` are absolute paths; `artifact` is relative to the tree. Exactly one of
    `diff` and `new_source` is given. `cache` is the folder that keeps what was built ("" for the user's own).
    """

    name: str
    source: str
    build_command: str
    artifact: str
    version: str = "1"
    description: str = ""
    cves: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    diff: tuple[str, ...] = ()
    strip: int = 1
    new_source: str = ""
    configure_command: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    target: str = ""
    data_changes: tuple[str, ...] = ()
    consistency: str = ""
    cache: str = ""
    want_listings: bool = False


@dataclass(frozen=True)
class Listing:
    """The disassembly of a function, in the object and in the patch (or bytes of a value), for people to compare."""

    name: str
    file: str
    before: str
    after: str


@dataclass(frozen=True)
class BuildResult:
    """A patch, the bytes of its file, its summary as livepatch_build returns it (without path), and listings if asked.

    `changed_names` and `new_names`: what the change changes or adds of the names that `artifact` has for other objects.
    """

    patch: Patch
    content: bytes
    summary: dict[str, object]
    warnings: tuple[str, ...] = ()
    listings: tuple[Listing, ...] = ()
    artifact: str = ""
    changed_names: frozenset[str] = frozenset()
    new_names: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Refusal:
    """One thing that keeps the change from becoming a patch; `artifact` is told where there are several."""

    code: str
    symbol: str
    file: str
    reason: str
    remedy: str = ""
    artifact: str = ""

    def as_dict(self) -> dict[str, str]:
        """The refusal as the module returns it: {code, symbol, file, reason, remedy, artifact}."""
        return {
            "code": self.code,
            "symbol": self.symbol,
            "file": self.file,
            "reason": self.reason,
            "remedy": self.remedy or REMEDIES[self.code],
            "artifact": self.artifact,
        }


class BuildRefused(LivepatchError):
    """The change cannot become a patch; `refusals` says why, the first of them is the error itself.

    `new_names`: as in BuildResult, where it is known.
    """

    def __init__(self, refusals: list[Refusal], new_names: frozenset[str] = frozenset()) -> None:
        """At least one refusal."""
        first = refusals[0].as_dict()
        text = "; ".join(refusal.reason for refusal in refusals[:3])
        if len(refusals) > 3:
            text += "; and %d more" % (len(refusals) - 3)
        super().__init__(first["code"], text, first["remedy"])
        self.refusals = refusals
        self.new_names = new_names


def refuse(code: str, reason: str, symbol: str = "", file: str = "", remedy: str = "") -> BuildRefused:
    """A refusal that stands alone."""
    return BuildRefused([Refusal(code, symbol, file, reason, remedy)])
