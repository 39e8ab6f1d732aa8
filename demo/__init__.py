# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The demonstration: three hosts, a faulty server under load, a live patch in and out of it.

demo/run runs it (as root), through __main__. What it does is in steps, what it claims in claims. clients is the
program that asks the servers, answers what they may say, traffic what comes of it. What one sees is in screen, picture
and table. playbook runs ansible-playbook on deploy, build, rollout, facts and rollback (.yml). The server is in
server/, the change to it in fix.diff.
"""
