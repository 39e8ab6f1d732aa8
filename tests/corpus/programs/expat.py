# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""expat in a python3, built without its security fixes: the archive serves no older binary."""

from __future__ import annotations

from ..program import Fix, Program
from ..sessions import Host, called
from .hosted import hosted


def _command(deployed: str, folder: str, port: int) -> list[str]:
    """expat is compiled with -fexceptions: its patches tell the unwinder of their functions, so there must be one."""
    return ["/usr/bin/env", "LD_PRELOAD=libgcc_s.so.1", *hosted("expat")(deployed, folder, port)]


EXPAT = Program(
    name="expat",
    package="expat",
    fixed="2.5.0-1+deb12u2",
    artifact="expat/lib/.libs/libexpat.so.1.8.10",
    deployed="lib/x86_64-linux-gnu/libexpat.so.1.8.10",
    library=True,
    # As debian/rules has it, but where the sources lie: Debian compiles a copy of them.
    build_command="cd expat && ./buildconf.sh && eval $(dpkg-buildflags --export=sh) && ./configure --without-docbook"
    " && make -j2 -C lib libexpat.la",
    build_needs=("autoconf", "automake", "libtool", "dpkg-dev", "debhelper"),
    sources=r"expat/lib/[^/]+\.[ch]$",
    command=_command,
    connect=Host,
    quick=True,
    fixes=(
        Fix(
            "CVE-2024-45490",
            ("CVE-2024-45490.patch",),
            called("parse_a_buffer_of_minus_one_byte", "", "status 0, error 41"),
        ),
        Fix(
            "CVE-2024-45491",
            ("CVE-2024-45491.patch",),
            refused="nothing_changed",
            why="The new check stands between #if UINT_MAX >= SIZE_MAX and #endif: it is for 32-bit machines alone.",
        ),
        Fix(
            "CVE-2024-45492",
            ("CVE-2024-45492.patch",),
            refused="nothing_changed",
            why="The new check stands between #if UINT_MAX >= SIZE_MAX and #endif: it is for 32-bit machines alone.",
        ),
        Fix(
            "CVE-2023-52425",
            ("expat-2.5.0-CVE-2023-52425.patch",),
            refused="layout_changed",
            refuses="m_reparseDeferralEnabled",
            why="XML_ParserStruct grows by what is remembered of an incomplete token: parsers that exist do not"
            " have it.",
        ),
        Fix(
            "CVE-2024-50602",
            ("expat-2.5.0-CVE-2024-50602.patch",),
            called("stop_a_parser_that_has_not_begun", "status 1, error 0", "status 0, error 44"),
        ),
        Fix(
            "CVE-2024-8176",
            ("expat-2.5.0-CVE-2024-8176.patch",),
            refused="layout_changed signature_changed",
            refuses="m_openAttributeEntities",
            why="Recursion becomes lists of open entities in XML_ParserStruct, and a field in each entity: parsers that"
            " exist have neither.",
        ),
    ),
)
