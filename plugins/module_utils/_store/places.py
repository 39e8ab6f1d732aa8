# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Where everything lies on a host. One name for each place; tests put all of them below a folder of their own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Places:
    """The paths of a host whose root directory is `root` (empty: this one's own)."""

    root: str = ""

    @property
    def store(self) -> str:
        """The patches, and what is desired of them: root's alone."""
        return self.root + "/var/lib/cgl-livepatch"

    @property
    def audit_log(self) -> str:
        """What was done on this host, see audit_log.py."""
        return self.store + "/audit.log"

    @property
    def journal(self) -> str:
        """Where the journal takes messages with fields."""
        return self.root + "/run/systemd/journal/socket"

    @property
    def settings(self) -> str:
        """What an administrator sets."""
        return self.root + "/etc/cgl-livepatch"

    @property
    def disable(self) -> str:
        """The kill switch: nothing is applied while this file is there, whatever is in it."""
        return self.settings + "/disable"

    @property
    def units(self) -> str:
        """The services that are started through the launcher, one a line."""
        return self.settings + "/units"

    @property
    def program(self) -> str:
        """The part of the collection that works without Ansible."""
        return self.root + "/usr/lib/cgl-livepatch"

    @property
    def launcher(self) -> str:
        """What services are started through."""
        return self.program + "/launch"

    @property
    def socket(self) -> str:
        """Where the service listens for launchers; everybody may ask."""
        return self.root + "/run/cgl-livepatch/socket"

    @property
    def kernel_words(self) -> str:
        """The kernel's command line."""
        return (self.root + "/kernel_words") if self.root else "/proc/cmdline"
