# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later, v3.0 among them (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Write the report on the live patches of a fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
module: livepatch_report
short_description: Write the report on the live patches of a fleet
version_added: 0.1.0
author:
  - cgl.livepatch contributors (@cgl)
description:
  - Writes, from the facts of all hosts of the play, one HTML page that needs nothing else, the same as JSON, and a file
    for the textfile collector of Prometheus' node_exporter.
  - They tell which CVEs are fixed in which processes, how long these stood still for that, where memory, disk and what
    is desired differ, what cannot be patched, and what was done when.
  - A host that could not be looked at is shown as unknown. Nothing is claimed that the facts do not prove.
  - Runs on the controller, once for all hosts, and contacts none of them.
  - The role P(cgl.livepatch.report#role) gathers the facts and uses it.
extends_documentation_fragment:
  - cgl.livepatch.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Shows how each host stands to each CVE.
  idempotent:
    support: full
    details: The files are written each time, as the time is in them. C(changed) tells whether anything else is another.
  platform:
    support: full
    platforms: all
options:
  dest:
    description:
      - The folder on the controller for C(report.html), C(report.json) and C(report.prom). It is made when missing.
      - A relative path begins at the folder in which Ansible was started.
    type: path
    required: true
  metrics:
    description:
      - Where to write the file for Prometheus, instead of O(dest). Its name must end with C(.prom) for node_exporter.
    type: path
  looks:
    description:
      - Names of the variables in which each host has the results of M(cgl.livepatch.livepatch_facts), registered in
        this play, in the order in which it was asked. The last one counts that was not skipped.
    type: list
    elements: str
    default: [report_look, report_again]
  fixed_builds:
    description:
      - For each CVE, a list of the build-ids in which it is fixed, for example those of a package's new version. A
        process which runs one of them, where others run an affected build, is then fixed on disk.
      - Facts cannot know that. Where it is not said, other builds are unknown.
    type: dict
    default: {}
notes:
  - One file for Prometheus tells of the whole fleet, with the label C(host), because a host that cannot be reached
    cannot tell so itself. Have the node_exporter of the controller read it.
seealso:
  - module: cgl.livepatch.livepatch_facts
  - plugin: cgl.livepatch.compliant
    plugin_type: test
"""

EXAMPLES = r"""
- name: Look what the processes have in them
  cgl.livepatch.livepatch_facts:
    scan: all
    desired: true
  register: look
  ignore_errors: true
  ignore_unreachable: true

- name: Write the report
  cgl.livepatch.livepatch_report:
    dest: /srv/reports/livepatch
    metrics: /var/lib/prometheus/node-exporter/livepatch.prom
    looks:
      - look
    fixed_builds:
      CVE-2026-0001:
        - 9c1b7e0f2d6a4b3c8e5f7a1d0b2c4e6f8a9d7c5b
  run_once: true
"""

RETURN = r"""
page:
  description: Where the HTML page is.
  returned: success
  type: str
  sample: /srv/reports/livepatch/report.html
json:
  description:
    - Where the same is as JSON. It has C(schema), C(made_at), C(summary), C(hosts) (each with its state for each CVE),
      C(cves) (each with C(rows), one for each process), C(patches), C(stops), C(drift), C(obstacles) and C(done).
  returned: success
  type: str
  sample: /srv/reports/livepatch/report.json
metrics:
  description: Where the file for Prometheus is.
  returned: success
  type: str
  sample: /srv/reports/livepatch/report.prom
summary:
  description:
    - Counts. C(unknown_hosts) could not be looked at; C(unsure_hosts) are these and those with processes that could not
      be looked at. C(proven_cves) are fixed wherever affected code runs.
  returned: success
  type: dict
  sample:
    hosts: 200
    unknown_hosts: 1
    unsure_hosts: 1
    cves: 1
    proven_cves: 0
    drift: 3
    obstacles: 0
"""
