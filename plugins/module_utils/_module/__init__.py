# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The only room that knows Ansible: arguments, results, diffs and failures of the modules."""

from .. import _compile_once  # noqa: F401 (before all others)
