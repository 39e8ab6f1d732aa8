# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""libarchive in a host program (host.py), through its C interface: an archive read from memory."""

from __future__ import annotations

import ctypes
import io
import tarfile

archive = ctypes.CDLL("libarchive.so.13")
archive.archive_read_new.restype = ctypes.c_void_p
archive.archive_entry_pathname.restype = ctypes.c_char_p
archive.archive_read_data.restype = ctypes.c_ssize_t
CONTENT = b"something to read\n" * 50


def _tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = len(CONTENT)
        tar.addfile(entry, io.BytesIO(CONTENT))
    return packed.getvalue()


PACKED = _tar()


def work() -> None:
    """Read the one file of a tar.gz, its kind unknown before."""
    reader = ctypes.c_void_p(archive.archive_read_new())
    archive.archive_read_support_filter_all(reader)
    archive.archive_read_support_format_all(reader)
    assert archive.archive_read_open_memory(reader, PACKED, ctypes.c_size_t(len(PACKED))) == 0
    entry = ctypes.c_void_p()
    assert archive.archive_read_next_header(reader, ctypes.byref(entry)) == 0
    assert archive.archive_entry_pathname(entry) == b"file"
    data = ctypes.create_string_buffer(4096)
    size = archive.archive_read_data(reader, data, ctypes.c_size_t(4096))
    assert data.raw[:size] == CONTENT
    assert archive.archive_read_free(reader) == 0
