# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a description of a program says: where it comes from, how it is built and run, and which fixes it gets."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Callable, Protocol

if TYPE_CHECKING:
    from .running import Running


class Session(Protocol):
    """One connection of the load."""

    def ask(self) -> None:
        """One request and its answer. Raises any exception when there is none, or a wrong one."""

    def close(self) -> None:
        """End the connection."""


@dataclasses.dataclass(frozen=True)
class Probe:
    """What the fix changes in what the program does.

    `ask` is given the running program and the paths of the fix's Debian patches (many bring a test, with its payload);
    its answers are compared as they are. `unfixed` is empty where the program is asked with the fix alone: without,
    it would not live through it.
    """

    ask: Callable[[Running, list[str]], str]
    unfixed: str
    fixed: str


@dataclasses.dataclass(frozen=True)
class Fix:
    """One fix of the source package. `refused` names the codes with which it must be refused, no more and no less, and
    `why` says what was found when that was examined; `refuses` must stand in one of the reasons.
    """

    cves: str
    patches: tuple[str, ...]  # in debian/patches
    probe: Probe | None = None
    refused: str = ""
    refuses: str = ""
    why: str = ""

    @property
    def id(self) -> str:
        """The patch's id."""
        return self.cves.split()[0].lower()


@dataclasses.dataclass(frozen=True)
class Program:
    """One program, or a library in a host program.

    With `stock` the binary package of that version, which Debian still serves without the fixes, is what runs; without,
    and when it has vanished, a build of the source package `fixed` from which the patches are taken out.
    """

    name: str
    package: str  # the source package
    fixed: str  # its version that has the fixes
    artifact: str  # what the build makes, relative to the tree
    deployed: str  # the path of the same in the binary packages; its name is the one it goes by
    fixes: tuple[Fix, ...]
    command: Callable[[str, str, int], list[str]]  # of the deployed object, a folder of its own, a port on loopback
    connect: Callable[[int], Session]
    sources: str  # an expression: the files of a patch that are the program, not its tests or documents
    stock: str = ""
    binaries: tuple[str, ...] = ()
    library: bool = False  # found by the host program through LD_LIBRARY_PATH
    build_command: str = ""  # in place of debian/rules build
    build_needs: tuple[str, ...] = ()  # in place of the source package's build dependencies
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    runs_with: tuple[str, ...] = ()  # packages that are needed to run it
    quick: bool = False  # one of those that run with every change
