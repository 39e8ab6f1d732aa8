# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A file system in user space that holds one program, and from some point on answers nobody (fuse(4), linux/fuse.h).

    python silent_file_system.py FOLDER FILE

It says "ready" when FILE is there in FOLDER, and "silent" when it has fallen silent, as any line on its input makes it.
At the end of its input it ends, and the mount with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import stat
import struct
import sys

LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT, BATCH_FORGET = 1, 2, 3, 14, 15, 18, 25, 26, 42
_INVALIDATE_INODE = 2
_HEADER, _REPLY, _ATTRIBUTES = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ"), struct.Struct("<6Q10I")
_ROOT, _FILE = 1, 2
_LAZILY = 2
_libc = ctypes.CDLL(None, use_errno=True)


def main(folder: str, path: str) -> None:
    """Serve the file until the input ends."""
    with open(path, "rb") as stream:
        content = stream.read()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK)
    options = b"fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other" % device
    if _libc.mount(b"livepatch-test", folder.encode(), b"fuse", 0, options):
        raise OSError(ctypes.get_errno(), "mount")
    try:
        print("ready", flush=True)
        silent = False
        while True:
            ready = select.select([0, device], [], [])[0]
            if 0 in ready:
                if not os.read(0, 100):
                    return
                # What was read before is forgotten: whoever wants it has to ask us.
                silent = True
                body = struct.pack("<Qqq", _FILE, 0, 0)
                os.write(device, _REPLY.pack(_REPLY.size + len(body), _INVALIDATE_INODE, 0) + body)
                print("silent", flush=True)
                continue
            with contextlib.suppress(BlockingIOError):  # who asked has died meanwhile
                asked = os.read(device, 1 << 17)
                # Taken and not answered: whoever waits for that cannot even be killed.
                if not silent:
                    _answer(device, asked, os.path.basename(path).encode(), content)
    finally:
        _libc.umount2(folder.encode(), _LAZILY)


def _answer(device: int, raw: bytes, name: bytes, content: bytes) -> None:
    _size, kind, unique, node = _HEADER.unpack_from(raw)[:4]
    asked, body, failed = raw[_HEADER.size :], b"", 0
    if kind in (FORGET, BATCH_FORGET):
        return
    if kind == INIT:
        body = struct.pack("<4I2HI2I8I", 7, 31, 0, 0, 0, 0, 4096, 1, 0, *[0] * 8)[:64]
    elif kind == LOOKUP and asked.rstrip(b"\0") == name:
        body = struct.pack("<4Q2I", _FILE, 0, 0, 0, 0, 0) + _attributes(_FILE, len(content))
    elif kind == GETATTR:
        body = struct.pack("<Q2I", 0, 0, 0) + _attributes(node, len(content))
    elif kind == OPEN:
        body = struct.pack("<QIi", 0, 0, 0)
    elif kind == READ:
        start, size = struct.unpack_from("<8xQI", asked)
        body = content[start : start + size]
    elif kind not in (RELEASE, FLUSH):
        failed = errno.ENOENT if kind == LOOKUP else errno.ENOSYS
    os.write(device, _REPLY.pack(_REPLY.size + len(body), -failed, unique) + body)


def _attributes(node: int, size: int) -> bytes:
    mode = stat.S_IFDIR | 0o755 if node == _ROOT else stat.S_IFREG | 0o755
    return _ATTRIBUTES.pack(node, size, (size + 511) // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
