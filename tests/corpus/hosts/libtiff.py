# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""libtiff in a host program (host.py), through its C interface: pictures written and read again."""

from __future__ import annotations

import ctypes
import os
import tempfile

tiff = ctypes.CDLL("libtiff.so.6")
tiff.TIFFOpen.restype = ctypes.c_void_p
SIDE = 16
# ImageWidth, ImageLength, BitsPerSample, Compression (LZW), Photometric (RGB), SamplesPerPixel, RowsPerStrip,
# PlanarConfig (contiguous)
TAGS = {256: SIDE, 257: SIDE, 258: 8, 259: 5, 262: 2, 277: 3, 278: SIDE, 284: 1}


def work() -> None:
    """Write a picture, compressed, and read it as libtiff gives pictures to programs that show them."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "picture.tif").encode()
        file = ctypes.c_void_p(tiff.TIFFOpen(path, b"w"))
        for tag, value in TAGS.items():
            assert tiff.TIFFSetField(file, tag, value) == 1
        for row in range(SIDE):
            line = bytes([row, 100, 200]) * SIDE
            assert tiff.TIFFWriteScanline(file, line, row, 0) == 1
        tiff.TIFFClose(file)
        file = ctypes.c_void_p(tiff.TIFFOpen(path, b"r"))
        pixels = (ctypes.c_uint32 * (SIDE * SIDE))()
        assert tiff.TIFFReadRGBAImageOriented(file, SIDE, SIDE, pixels, 1, 0) == 1
        tiff.TIFFClose(file)
        assert pixels[SIDE * 3] == 0xFFC86403, hex(pixels[SIDE * 3])
