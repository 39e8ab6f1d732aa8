# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""libtiff in a host program (host.py), through its C interface: pictures written to memory and read again."""

from __future__ import annotations

import ctypes
import io
import itertools

tiff = ctypes.CDLL("libtiff.so.6")
tiff.TIFFClientOpen.restype = ctypes.c_void_p
SIDE = 16
# ImageWidth, ImageLength, BitsPerSample, Compression (LZW), Photometric (RGB), SamplesPerPixel, RowsPerStrip,
# PlanarConfig (contiguous)
TAGS = {256: SIDE, 257: SIDE, 258: 8, 259: 5, 262: 2, 277: 3, 278: SIDE, 284: 1}
numbers = itertools.count(1)
files: dict[int, io.BytesIO] = {}

P, SIZE, OFFSET = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_uint64
Read = ctypes.CFUNCTYPE(SIZE, P, P, SIZE)
Seek = ctypes.CFUNCTYPE(OFFSET, P, OFFSET, ctypes.c_int)
Close = ctypes.CFUNCTYPE(ctypes.c_int, P)
Size = ctypes.CFUNCTYPE(OFFSET, P)
Map = ctypes.CFUNCTYPE(ctypes.c_int, P, P, P)
Unmap = ctypes.CFUNCTYPE(None, P, P, OFFSET)


def read(number: int, place: int, size: int) -> int:
    """TIFFReadWriteProc (tiffio.h), as the next six."""
    data = files[number].read(size)
    ctypes.memmove(place, data, len(data))
    return len(data)


def write(number: int, place: int, size: int) -> int:
    """The same, the other way."""
    return files[number].write(ctypes.string_at(place, size))


# Where in a file of this number; that nothing is to be done when it is closed; its size; that it cannot be mapped.
CALLS = (
    Read(read),
    Read(write),
    Seek(lambda number, offset, whence: files[number].seek(ctypes.c_int64(offset).value, whence)),
    Close(lambda _number: 0),
    Size(lambda number: len(files[number].getbuffer())),
    Map(lambda _number, _place, _size: 0),
    Unmap(lambda _number, _place, _size: None),
)


def work() -> None:
    """Write a picture, compressed, and read it as libtiff gives pictures to programs that show them."""
    number = next(numbers)
    files[number] = io.BytesIO()
    file = P(tiff.TIFFClientOpen(b"picture", b"w", P(number), *CALLS))
    for tag, value in TAGS.items():
        assert tiff.TIFFSetField(file, tag, value) == 1
    for row in range(SIDE):
        line = bytes([row, 100, 200]) * SIDE
        assert tiff.TIFFWriteScanline(file, line, row, 0) == 1
    tiff.TIFFClose(file)
    files[number].seek(0)
    file = P(tiff.TIFFClientOpen(b"picture", b"r", P(number), *CALLS))
    pixels = (ctypes.c_uint32 * (SIDE * SIDE))()
    assert tiff.TIFFReadRGBAImageOriented(file, SIDE, SIDE, pixels, 1, 0) == 1
    tiff.TIFFClose(file)
    del files[number]
    assert pixels[SIDE * 3] == 0xFFC86403, hex(pixels[SIDE * 3])
