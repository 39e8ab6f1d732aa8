# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later, v3.0 among them (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Ask a service whether it is healthy, and whether it answers as fast as before."""

from __future__ import annotations

DOCUMENTATION = r"""
module: livepatch_health
short_description: Ask a service whether it is healthy, and whether it answers as fast as before
version_added: 0.1.0
author:
  - cgl.livepatch contributors (@cgl)
description:
  - Tries what is given, a command, a URL, a port, from the host that the task runs on, and fails when any of them is
    not as it should be.
  - With O(latency), it measures how long the slowest answers take, and compares that with the same host's own before.
  - The role P(cgl.livepatch.rollout#role) uses it before and after it works on a host.
extends_documentation_fragment:
  - cgl.livepatch.attributes
attributes:
  check_mode:
    support: full
    details: The service is asked in check mode, too.
  diff_mode:
    support: N/A
    details: It changes nothing.
  idempotent:
    support: N/A
    details: It changes nothing, unless O(command) does.
  platform:
    support: full
    platforms: posix
options:
  command:
    description: A command for the shell, which ends with status 0 when the service is healthy.
    type: str
  url:
    description: An C(http) or C(https) URL that is read with GET. Redirections are not followed.
    type: str
  status:
    description: The status codes that O(url) may answer with.
    type: list
    elements: int
    default: [200]
  validate_certs:
    description: Whether the certificate of an C(https) URL must be good.
    type: bool
    default: true
  port:
    description: A TCP port that must accept a connection.
    type: int
  host:
    description: Where that O(port) is, as seen from the host that the task runs on.
    type: str
    default: 127.0.0.1
  timeout:
    description: Seconds for each single try.
    type: float
    default: 10
  tries:
    description: How often what fails is tried, a second apart, before the service counts as not healthy.
    type: int
    default: 1
  latency:
    description:
      - Measure how long answers take, one request after the other, of O(url), else of O(port), else of O(command).
    type: dict
    suboptions:
      requests:
        description: How many requests are measured.
        type: int
        default: 200
      quantile:
        description: The part of the requests that must not take longer than the figure that is compared.
        type: float
        default: 0.99
      factor:
        description: How many times as long as before it may take.
        type: float
        default: 1.5
      slack_ms:
        description: How many milliseconds more, on top of that, are no reason to worry.
        type: float
        default: 5
  before_ms:
    description: RV(latency_ms) of this host from before. Without it, nothing is compared.
    type: float
seealso:
  - module: ansible.builtin.uri
  - module: ansible.builtin.wait_for
"""

EXAMPLES = r"""
- name: Measure a service
  cgl.livepatch.livepatch_health:
    url: http://127.0.0.1:8080/health
    latency:
      quantile: 0.99
  register: before

- name: Compare
  cgl.livepatch.livepatch_health:
    url: http://127.0.0.1:8080/health
    latency:
      quantile: 0.99
      factor: 2
    before_ms: "{{ before.latency_ms }}"
"""

RETURN = r"""
latency_ms:
  description: How long the slowest answers took, as O(latency) says, milliseconds; none when it was not measured.
  returned: always
  type: float
  sample: 1.7
checked:
  description: What was tried.
  returned: always
  type: list
  elements: str
  sample:
    - url
error:
  description: Why the service is not healthy, with code, message and remedy.
  returned: failure
  type: dict
  sample:
    code: unhealthy
    message: http://127.0.0.1:8080/health answered with status 503
    remedy: Find out what is wrong with the service on this host, then run this again.
"""

import http.client
import math
import socket
import ssl
import subprocess
import time
from typing import Any, Callable
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._errors import LivepatchError
from ..module_utils._module.failure import fail

Probe = Callable[[], None]
_PAUSE = 1.0


def probe_command(command: str, timeout: float) -> None:
    """Raises LivepatchError unless the command ends well."""
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LivepatchError("unhealthy", "the command %r did not end in %g s" % (command, timeout)) from None
    if done.returncode:
        said = done.stdout.decode("utf-8", "replace").strip()[-300:]
        raise LivepatchError("unhealthy", "the command %r ended with status %d: %s" % (command, done.returncode, said))


def probe_url(url: str, status: list[int], validate: bool, timeout: float) -> None:
    """Raises LivepatchError unless the URL answers with one of the `status` codes."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        context = ssl.create_default_context()
        if not validate:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=context)
    elif parts.scheme == "http":
        connection = http.client.HTTPConnection(host, parts.port, timeout=timeout)
    else:
        raise LivepatchError("unhealthy", "%s is no http or https URL" % url, "Correct the URL.")
    try:
        connection.request("GET", (parts.path or "/") + ("?" + parts.query if parts.query else ""))
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException) as problem:
        raise LivepatchError("unhealthy", "%s does not answer: %s" % (url, problem or type(problem).__name__)) from None
    finally:
        connection.close()
    if answer.status not in status:
        raise LivepatchError("unhealthy", "%s answered with status %d" % (url, answer.status))


def probe_port(host: str, port: int, timeout: float) -> None:
    """Raises LivepatchError unless the port accepts a connection."""
    try:
        socket.create_connection((host, port), timeout).close()
    except OSError as problem:
        raise LivepatchError("unhealthy", "port %d of %s accepts no connection: %s" % (port, host, problem)) from None


def probes(params: dict[str, Any]) -> dict[str, Probe]:
    """What is to be tried, by the name of its option; the first of them is the one whose latency is measured."""
    found: dict[str, Probe] = {}
    timeout = params["timeout"]
    if params["url"]:
        found["url"] = lambda: probe_url(params["url"], params["status"], params["validate_certs"], timeout)
    if params["port"]:
        found["port"] = lambda: probe_port(params["host"], params["port"], timeout)
    if params["command"]:
        found["command"] = lambda: probe_command(params["command"], timeout)
    return found


def insisting(probe: Probe, tries: int) -> None:
    """Try up to `tries` times. Raises the last try's LivepatchError."""
    for left in reversed(range(max(1, tries))):
        try:
            return probe()
        except LivepatchError:
            if not left:
                raise
            time.sleep(_PAUSE)
    return None


def tail_ms(probe: Probe, requests: int, quantile: float) -> float:
    """The time within which the part `quantile` of the requests is answered, milliseconds."""
    taken = []
    for _number in range(requests):
        begin = time.monotonic()
        probe()
        taken.append((time.monotonic() - begin) * 1e3)
    taken.sort()
    return taken[max(0, math.ceil(quantile * requests) - 1)]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "command": {"type": "str"},
            "url": {"type": "str"},
            "status": {"type": "list", "elements": "int", "default": [200]},
            "validate_certs": {"type": "bool", "default": True},
            "port": {"type": "int"},
            "host": {"type": "str", "default": "127.0.0.1"},
            "timeout": {"type": "float", "default": 10},
            "tries": {"type": "int", "default": 1},
            "latency": {
                "type": "dict",
                "options": {
                    "requests": {"type": "int", "default": 200},
                    "quantile": {"type": "float", "default": 0.99},
                    "factor": {"type": "float", "default": 1.5},
                    "slack_ms": {"type": "float", "default": 5},
                },
            },
            "before_ms": {"type": "float"},
        },
        required_one_of=[("command", "url", "port")],
        supports_check_mode=True,
    )
    params = module.params
    tried = probes(params)
    latency, before = params["latency"], params["before_ms"]
    if latency and (latency["requests"] < 1 or not 0 < latency["quantile"] <= 1):
        module.fail_json(msg="latency needs at least 1 request, and a quantile above 0, up to 1")
    result: dict[str, Any] = {"changed": False, "checked": list(tried), "latency_ms": None}
    try:
        for probe in tried.values():
            insisting(probe, params["tries"])
        if latency:
            measured = tail_ms(next(iter(tried.values())), latency["requests"], latency["quantile"])
            result["latency_ms"] = round(measured, 3)
            if before is not None and measured > before * latency["factor"] + latency["slack_ms"]:
                raise LivepatchError(
                    "unhealthy",
                    "%g %% of the answers took up to %.1f ms, and %.1f ms before"
                    % (latency["quantile"] * 100, measured, before),
                )
    except LivepatchError as error:
        fail(module, error, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
