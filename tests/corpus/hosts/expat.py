# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""expat in a host program (host.py): python3's own parser of XML, and expat's C interface."""

from __future__ import annotations

import ctypes
import xml.parsers.expat

expat = ctypes.CDLL("libexpat.so.1")
expat.XML_ParserCreate.restype = ctypes.c_void_p
DOCUMENT = b"<!DOCTYPE list [<!ENTITY e '<b>two</b>'>]><list><item n='1'>one</item><item n='2'>&e;</item></list>"


def work() -> None:
    """Parse a document with an entity in it."""
    names: list[str] = []
    parser = xml.parsers.expat.ParserCreate()
    parser.StartElementHandler = lambda name, _attributes: names.append(name)
    parser.Parse(DOCUMENT, True)
    assert names == ["list", "item", "item", "b"], names


def parse_a_buffer_of_minus_one_byte() -> str:
    """Status and error code."""
    return _asked(lambda parser: expat.XML_ParseBuffer(parser, -1, 0))


def stop_a_parser_that_has_not_begun() -> str:
    """Status and error code."""
    return _asked(lambda parser: expat.XML_StopParser(parser, 0))


def _asked(call: object) -> str:
    parser = ctypes.c_void_p(expat.XML_ParserCreate(None))
    status = call(parser)  # type: ignore[operator]
    text = f"status {status}, error {expat.XML_GetErrorCode(parser)}"
    expat.XML_ParserFree(parser)
    return text
