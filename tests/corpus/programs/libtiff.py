# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""libtiff in a python3, built without its security fixes: the archive serves no older binary."""

from __future__ import annotations

from ..program import Fix, Program
from ..sessions import Host
from .hosted import hosted

LIBTIFF = Program(
    name="libtiff",
    package="tiff",
    fixed="4.5.0-6+deb12u4",
    artifact="libtiff/.libs/libtiff.so.6.0.0",
    deployed="usr/lib/x86_64-linux-gnu/libtiff.so.6.0.0",
    library=True,
    # Of Debian's build what makes the library.
    build_command="dh_update_autotools_config && dh_autoreconf && debian/rules override_dh_auto_configure"
    " && make -j2 -C port && make -j2 -C libtiff libtiff.la",
    sources=r"libtiff/[^/]+\.[ch]$",
    command=hosted("libtiff"),
    connect=Host,
    fixes=(
        Fix("CVE-2023-2731", ("CVE-2023-2731.patch",)),
        Fix("CVE-2023-2908", ("CVE-2023-2908.patch",)),
        Fix("CVE-2023-52356", ("CVE-2023-52356.patch",)),
        Fix("CVE-2023-26966", ("CVE-2023-26966.patch",)),
        Fix("CVE-2024-7006", ("CVE-2024-7006.patch",)),
        Fix("CVE-2025-9900", ("CVE-2025-9900.patch",)),
        Fix("CVE-2026-4775", ("CVE-2026-4775.patch",)),
    ),
)
