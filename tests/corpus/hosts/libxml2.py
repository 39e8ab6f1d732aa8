# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""libxml2 in a host program (host.py), through its C interface: parsing, XPath, catalogs, RELAX NG."""

from __future__ import annotations

import ctypes
import os
import tempfile

xml2 = ctypes.CDLL("libxml2.so.2")
for _name in (
    "xmlReadMemory xmlXPathNewContext xmlXPathEvalExpression xmlXPathCompile xmlLoadSGMLSuperCatalog xmlNewCatalog"
    " xmlCatalogResolveURI xmlACatalogResolveURI xmlLoadACatalog xmlRelaxNGNewMemParserCtxt xmlRelaxNGParse"
).split():
    getattr(xml2, _name).restype = ctypes.c_void_p
P = ctypes.c_void_p
DOCUMENT = b"<list><item n='1'>one</item><item n='2'>two</item></list>"
xml2.xmlInitParser()


class XPathObject(ctypes.Structure):
    """The beginning of xmlXPathObject (libxml/xpath.h)."""

    _fields_ = (("type", ctypes.c_int), ("nodes", P), ("truth", ctypes.c_int), ("number", ctypes.c_double))


def work() -> None:
    """Parse a document and evaluate an expression over it."""
    assert count(DOCUMENT.decode(), "count(//item[@n='2'])") == 1.0


def count(document: str, expression: str) -> float:
    """The number that an XPath expression gives, -1 where it cannot be evaluated."""
    raw = document.encode()
    tree = P(xml2.xmlReadMemory(raw, len(raw), b"memory.xml", None, 1 << 5 | 1 << 6))
    assert tree, "not parsed"
    context = P(xml2.xmlXPathNewContext(tree))
    try:
        found = xml2.xmlXPathEvalExpression(expression.encode(), context)
        if not found:
            return -1.0
        value = XPathObject.from_address(found).number
        xml2.xmlXPathFreeObject(P(found))
        return value
    finally:
        xml2.xmlXPathFreeContext(context)
        xml2.xmlFreeDoc(tree)
