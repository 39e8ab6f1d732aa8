# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""libxml2 in a host program (host.py), through its C interface: parsing, XPath, and catalogs."""

from __future__ import annotations

import ctypes
import os
import tempfile
import time

xml2 = ctypes.CDLL("libxml2.so.2")
libc = ctypes.CDLL(None)
P = ctypes.c_void_p
DOCUMENT = b"<list><item n='1'>one</item><item n='2'>two</item></list>"
EXPRESSION = b"count(//item[@n='2'])"
NO_ERRORS = 1 << 5 | 1 << 6  # XML_PARSE_NOERROR, XML_PARSE_NOWARNING
CATALOG = '<catalog xmlns="urn:oasis:names:tc:entity:xmlns:xml:catalog">%s</catalog>'


class XPathObject(ctypes.Structure):
    """The beginning of xmlXPathObject (libxml/xpath.h)."""

    _fields_ = (("type", ctypes.c_int), ("nodes", P), ("truth", ctypes.c_int), ("number", ctypes.c_double))


def new(function: str, *arguments: object) -> P:
    """Call a function that gives a pointer, which must not be null."""
    called = getattr(xml2, function)
    called.restype = P
    value = called(*arguments)
    assert value, function
    return P(value)


def work() -> None:
    """Parse a document and evaluate an expression over it."""
    tree = new("xmlReadMemory", DOCUMENT, len(DOCUMENT), b"memory.xml", None, NO_ERRORS)
    context = new("xmlXPathNewContext", tree)
    found = new("xmlXPathEvalExpression", EXPRESSION, context)
    assert ctypes.cast(found, ctypes.POINTER(XPathObject)).contents.number == 1.0
    xml2.xmlXPathFreeObject(found)
    xml2.xmlXPathFreeContext(context)
    xml2.xmlFreeDoc(tree)


def load_sgml_catalog_that_names_itself() -> str:
    """Reading it again and again ends only where there is a limit."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "loop.sgml")
        with open(path, "w", encoding="ascii") as stream:
            stream.write("CATALOG loop.sgml\n")
        xml2.xmlFreeCatalog(new("xmlLoadSGMLSuperCatalog", path.encode()))
    return "ends"


def resolve_in_catalog_that_delegates_to_itself() -> str:
    """The same for looking up an address."""
    _resolve(['<delegateURI uriStartString="http://x.example/" catalog="0.xml"/>'])
    return "ends"


def resolve_where_each_catalog_names_the_next_twice() -> str:
    """All of 2 ** 22 ways through the catalogs are gone, or one."""
    names = [f'<nextCatalog catalog="{number}.xml"/>' * 2 for number in range(1, 23)]
    return "slow" if _resolve([*names, ""]) > 0.03 else "quick"


def _resolve(entries: list[str]) -> float:
    """Look up an address in the first of catalogs with these entries; the second time, in seconds of CPU time."""
    with tempfile.TemporaryDirectory() as folder:
        for number, entry in enumerate(entries):
            with open(os.path.join(folder, f"{number}.xml"), "w", encoding="ascii") as stream:
                stream.write(CATALOG % entry)
        catalog = new("xmlLoadACatalog", os.path.join(folder, "0.xml").encode())
        xml2.xmlACatalogResolveURI.restype = P
        for _time in range(2):
            begin = time.thread_time()
            xml2.xmlACatalogResolveURI(catalog, b"http://x.example/y")
            took = time.thread_time() - begin
        xml2.xmlFreeCatalog(catalog)
    return took


xml2.xmlInitParser()
xml2.xmlSetGenericErrorFunc(None, ctypes.cast(libc.getpid, P))
