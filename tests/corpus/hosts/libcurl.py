# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""libcurl in a host program (host.py), through its C interface: transfers from a server of the host's own."""

from __future__ import annotations

import ctypes
import http.server
import itertools
import threading

curl = ctypes.CDLL("libcurl.so.4")
curl.curl_easy_init.restype = ctypes.c_void_p
URL, WRITEFUNCTION, WRITEDATA, NOPROXY, NOSIGNAL = 10002, 20011, 10001, 10177, 99
BODY = b"what was asked for"
Write = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p)


class Answers(http.server.BaseHTTPRequestHandler):
    """Every GET is answered with BODY."""

    def do_GET(self) -> None:
        """One request."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_words: object) -> None:
        """Nobody reads it."""


# One thread for all, so that none comes or goes with a request.
server = http.server.HTTPServer(("127.0.0.1", 0), Answers)
server.socket.listen(64)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_address[1]}/".encode()
curl.curl_global_init(3)


@Write  # type: ignore[untyped-decorator]
def write(data: int, size: int, count: int, number: int) -> int:
    """Keep a piece of the body of a transfer."""
    transfers[number].append(ctypes.string_at(data, size * count))
    return size * count


numbers = itertools.count(1)
transfers: dict[int, list[bytes]] = {}


def work() -> None:
    """One transfer."""
    number = next(numbers)
    transfers[number] = []
    handle = ctypes.c_void_p(curl.curl_easy_init())
    options = (
        (URL, address),
        (NOPROXY, b"*"),
        (WRITEFUNCTION, write),
        (WRITEDATA, ctypes.c_void_p(number)),
        (NOSIGNAL, ctypes.c_long(1)),
    )
    for option, value in options:
        assert curl.curl_easy_setopt(handle, option, value) == 0
    status = curl.curl_easy_perform(handle)
    curl.curl_easy_cleanup(handle)
    got = b"".join(transfers.pop(number))
    assert (status, got) == (0, BODY), (status, got)
