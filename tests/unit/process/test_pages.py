# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Which pages a process has: those that were touched, whatever else is mapped, and asking gives it none."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os

import pytest

from module_utils._process import pages
from module_utils._process.pages import PAGE, held_pages
from module_utils._process.process import Process

_MADV_NOHUGEPAGE, _MADV_GUARD_INSTALL = 15, 102


def _mapped(size: int, protection: int = mmap.PROT_READ | mmap.PROT_WRITE) -> tuple[mmap.mmap, int]:
    """Private memory of this process, in small pages, that is not backed before it is touched, and where it is."""
    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, prot=protection)  # NORESERVE
    area.madvise(_MADV_NOHUGEPAGE)
    return area, ctypes.addressof(ctypes.c_char.from_buffer(area))


@pytest.fixture(params=[True, False], ids=["scanned", "one by one"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel with the call that finds pages in large areas, and one without it."""
    if not request.param:

        def lacking(*_: object) -> int:
            raise OSError(errno.ENOTTY, "no such call")

        monkeypatch.setattr(pages.fcntl, "ioctl", lacking)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("size", [64 * PAGE, (1 << 17) * PAGE, (1 << 17) * PAGE + PAGE])
def test_pages_that_were_touched(size: int) -> None:
    area, start = _mapped(size)
    touched = sorted({0, 1, 2, 17, 40, size // PAGE // 2, size // PAGE - 1})
    for number in touched:
        area[number * PAGE] = 1
    with Process(os.getpid()) as process:
        for _turn in range(2):  # asking touches none
            found = list(held_pages(process, [(start, start + size)]))
            numbers = [at // PAGE for first, end in found for at in range(first - start, end - start, PAGE)]
            assert numbers == touched


def test_more_parts_than_are_asked_for_at_once() -> None:
    count = pages._REGIONS * 2 + 5
    size = max(2 * count, pages._AT_ONCE + 1) * PAGE
    area, start = _mapped(size)
    for number in range(count):
        area[number * 2 * PAGE] = 1
    with Process(os.getpid()) as process:
        found = list(held_pages(process, [(start, start + size)]))
    assert found == [(start + at * 2 * PAGE, start + at * 2 * PAGE + PAGE) for at in range(count)]


def test_a_terabyte_that_is_reserved_takes_no_time() -> None:
    area, start = _mapped(1 << 40)
    area[1 << 39] = 1
    with Process(os.getpid()) as process:
        assert list(held_pages(process, [(start, start + (1 << 40))])) == [
            (start + (1 << 39), start + (1 << 39) + PAGE)
        ]


def test_a_guard_is_no_page() -> None:
    area, start = _mapped(8 * PAGE)
    area[:] = b"x" * len(area)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.madvise(ctypes.c_void_p(start + 3 * PAGE), ctypes.c_size_t(2 * PAGE), _MADV_GUARD_INSTALL):
        pytest.skip("the kernel has no MADV_GUARD_INSTALL (Linux 6.13)")
    with Process(os.getpid()) as process:
        assert list(held_pages(process, [(start, start + 8 * PAGE)])) == [
            (start, start + 3 * PAGE),
            (start + 5 * PAGE, start + 8 * PAGE),
        ]
