# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""libcurl in a python3: the security fixes after Debian's deb12u5, whose binary is still served."""

from __future__ import annotations

from ..program import Fix, Program
from ..sessions import Host
from .hosted import hosted

LIBCURL = Program(
    name="libcurl",
    package="curl",
    stock="7.88.1-10+deb12u5",
    binaries=("libcurl4",),
    fixed="7.88.1-10+deb12u15",
    artifact="lib/.libs/libcurl.so.4.8.0",
    deployed="usr/lib/x86_64-linux-gnu/libcurl.so.4.8.0",
    library=True,
    # As debian/rules has it for OpenSSL, but where the sources lie: Debian compiles copies of them, one a TLS library.
    # Its last two patches are for the other two; where the fixes are taken out, they are out, too.
    build_command="if grep -q 99_nss debian/patches/series; then quilt pop && quilt pop; fi"
    " && cp ltmain.sh ltmain.kept && ./buildconf && cp ltmain.kept ltmain.sh"
    " && dh_auto_configure -- --disable-dependency-tracking --disable-symbol-hiding --enable-versioned-symbols"
    " --enable-threaded-resolver --with-lber-lib=lber --with-gssapi=/usr --with-nghttp2"
    " --includedir=/usr/include/x86_64-linux-gnu --without-libssh --with-libssh2 --with-openssl"
    " --with-ca-path=/etc/ssl/certs --with-ca-bundle=/etc/ssl/certs/ca-certificates.crt"
    " && make -j2 -C lib libcurl.la",
    build_needs=(
        "autoconf",
        "automake",
        "debhelper",
        "libbrotli-dev",
        "libidn2-dev",
        "libkrb5-dev",
        "libldap-dev",
        "libnghttp2-dev",
        "libpsl-dev",
        "librtmp-dev",
        "libssh2-1-dev",
        "libssl-dev",
        "libtool",
        "libzstd-dev",
        "quilt",
        "zlib1g-dev",
    ),
    environment={
        "DEB_BUILD_MAINT_OPTIONS": "hardening=+all",
        "DEB_CFLAGS_MAINT_APPEND": '-D_DEB_HOST_ARCH=\\"x86_64-linux-gnu\\" -DCURL_PATCHSTAMP=\\"7.88.1-10+deb12u5\\"',
    },
    sources=r"(lib|include)/.*\.[ch]$",
    command=hosted("libcurl"),
    connect=Host,
    fixes=(
        Fix("CVE-2024-2004", ("CVE-2024-2004.patch",)),
        Fix("CVE-2024-2398", ("CVE-2024-2398.patch",)),
        Fix(
            "CVE-2024-7264",
            (
                "CVE-2024-7264-0.patch",
                "CVE-2024-7264-1.patch",
            ),
            refused="not_in_object",
            why="The parser of dates in certificates is for GnuTLS and others; with OpenSSL its file comes out empty.",
        ),
        Fix(
            "CVE-2024-8096",
            ("CVE-2024-8096.patch",),
            refused="not_in_object",
            why="The fix is in the code for GnuTLS; this library is the one for OpenSSL.",
        ),
        Fix(
            "CVE-2024-9681",
            (
                "CVE-2024-9681-0.patch",
                "CVE-2024-9681-1.patch",
            ),
        ),
        Fix(
            "CVE-2024-11053",
            ("CVE-2024-11053.patch",),
            refused="layout_changed",
            refuses="creds_from",
            why="UrlState gains where credentials come from, in the place of other bits: transfers that exist lack it.",
        ),
        Fix(
            "CVE-2025-0167",
            ("CVE-2025-0167.patch",),
            refused="layout_changed",
            refuses="creds_from",
            why="It stands on the fix for CVE-2024-11053, which adds to UrlState.",
        ),
        Fix(
            "CVE-2025-10148",
            ("CVE-2025-10148.patch",),
            refused="nothing_changed",
            why="The fix is for WebSockets, without which Debian builds.",
        ),
        Fix("CVE-2025-14524", ("CVE-2025-14524.patch",)),
        Fix(
            "CVE-2025-14819",
            ("CVE-2025-14819.patch",),
            refused="layout_changed",
            refuses="no_partialchain",
            why="What a multi handle keeps of a certificate store grows: stores that are kept are too small.",
        ),
        Fix("CVE-2026-3783", ("CVE-2026-3783.patch",)),
        Fix("CVE-2026-3784", ("CVE-2026-3784.patch",)),
        Fix("CVE-2026-5773", ("CVE-2026-5773.patch",)),
        Fix("CVE-2026-7168", ("CVE-2026-7168.patch",)),
    ),
)
