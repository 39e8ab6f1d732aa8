# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""libxml2 in a python3: the security fixes after Debian's deb12u4, whose binary is still served."""

from __future__ import annotations

from ..program import Fix, Program
from ..sessions import Host, called
from .hosted import hosted

LIBXML2 = Program(
    name="libxml2",
    package="libxml2",
    stock="2.9.14+dfsg-1.3~deb12u4",
    binaries=("libxml2",),
    fixed="2.9.14+dfsg-1.3~deb12u6",
    artifact="builddir/main/.libs/libxml2.so.2.9.14",
    deployed="usr/lib/x86_64-linux-gnu/libxml2.so.2.9.14",
    library=True,
    # Of Debian's build what makes the library; the documents and the Python bindings are left out.
    build_command="dh_update_autotools_config && dh_autoreconf && debian/rules doconfigure-main"
    " && make -C builddir/main -j2 libxml2.la",
    sources=r"(include/libxml/)?(?!run|test)[^/]+\.[ch]$",
    command=hosted("libxml2"),
    connect=Host,
    fixes=(
        Fix("CVE-2025-9714", ("CVE-2025-9714.patch",)),
        Fix("CVE-2026-1757", ("CVE-2026-1757.patch",)),
        Fix("CVE-2025-8732", ("CVE-2025-8732.patch",), called("load_sgml_catalog_that_names_itself", "", "ends")),
        Fix(
            "CVE-2026-0990", ("CVE-2026-0990.patch",), called("resolve_in_catalog_that_delegates_to_itself", "", "ends")
        ),
        Fix(
            "CVE-2026-0992",
            ("CVE-2026-0992/01-4af23b523.patch", "CVE-2026-0992/02-096402c94.patch"),
            called("resolve_where_each_catalog_names_the_next_twice", "slow", "quick"),
        ),
        Fix(
            "CVE-2026-0989",
            ("CVE-2026-0989.patch",),
            refused="layout_changed",
            refuses="incLimit",
            why="The parser's context gains a limit, in what was padding: contexts that exist have no limit set.",
        ),
    ),
)
