# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""An HTTP server of libevent's, driven through its C interface: python3 libevent.py PORT.

GET and POST of any address answer 200 with how much body came; /echo?NAME=VALUE adds a header NAME: VALUE to the
answer, if libevent takes it; /header?NAME answers with that header of the request.
"""

from __future__ import annotations

import ctypes
import sys
import urllib.parse

event = ctypes.CDLL("libevent-2.1.so.7")
for _name in (
    "event_base_new",
    "evhttp_new",
    "evhttp_request_get_input_buffer",
    "evhttp_request_get_input_headers",
    "evhttp_request_get_output_buffer",
    "evhttp_request_get_output_headers",
):
    getattr(event, _name).restype = ctypes.c_void_p
event.evhttp_request_get_uri.restype = event.evhttp_find_header.restype = ctypes.c_char_p
event.evbuffer_get_length.restype = ctypes.c_size_t
Callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)


def pointer(value: int | None) -> ctypes.c_void_p:
    """What a C function gave, to be passed on whole."""
    return ctypes.c_void_p(value)


def echo(request: ctypes.c_void_p, query: str) -> bytes:
    """Add a header to the answer."""
    headers = pointer(event.evhttp_request_get_output_headers(request))
    ((name, value),) = urllib.parse.parse_qsl(query)
    return b"%d" % event.evhttp_add_header(headers, name.encode(), value.encode())


def header(request: ctypes.c_void_p, query: str) -> bytes:
    """Whether the request has a header of this name."""
    headers = pointer(event.evhttp_request_get_input_headers(request))
    return event.evhttp_find_header(headers, query.encode()) or b"none"


@Callback  # type: ignore[untyped-decorator]
def answer(request: int, _argument: int) -> None:
    """Answer one request."""
    asked = pointer(request)
    path, _mark, query = event.evhttp_request_get_uri(asked).decode().partition("?")
    known = {"/echo": echo, "/header": header}
    text = known[path](asked, query) if path in known else b"body"
    body = event.evbuffer_get_length(pointer(event.evhttp_request_get_input_buffer(asked)))
    out = pointer(event.evhttp_request_get_output_buffer(asked))
    text += b" %d" % body
    event.evbuffer_add(out, text, ctypes.c_size_t(len(text)))
    event.evhttp_send_reply(asked, 200, b"OK", None)


if __name__ == "__main__":
    base = pointer(event.event_base_new())
    http = pointer(event.evhttp_new(base))
    assert event.evhttp_bind_socket(http, b"127.0.0.1", int(sys.argv[1])) == 0
    event.evhttp_set_gencb(http, answer, None)
    event.event_base_dispatch(base)
