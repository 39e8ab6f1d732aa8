# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""libarchive in a python3: the security fixes after Debian's deb12u4, whose binary is still served."""

from __future__ import annotations

from ..program import Fix, Program
from ..sessions import Host
from .hosted import hosted

LIBARCHIVE = Program(
    name="libarchive",
    package="libarchive",
    stock="3.6.2-1+deb12u4",
    binaries=("libarchive13",),
    fixed="3.6.2-1+deb12u5",
    artifact=".libs/libarchive.so.13.6.2",
    deployed="usr/lib/x86_64-linux-gnu/libarchive.so.13.6.2",
    library=True,
    # Of Debian's build what makes the library.
    build_command="dh_update_autotools_config && debian/rules override_dh_autoreconf"
    " && debian/rules override_dh_auto_configure && make -j2 libarchive.la",
    sources=r"libarchive/[^/]+\.[ch]$",
    command=hosted("libarchive"),
    connect=Host,
    fixes=(
        Fix("CVE-2026-14164", ("CVE-2026-14164.patch",)),
        Fix("CVE-2026-15028", ("CVE-2026-15028.patch",)),
        Fix("CVE-2026-16517", ("CVE-2026-16517.patch",)),
    ),
)
