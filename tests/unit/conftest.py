# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the unit tests find the engine (as the plain package module_utils) and each other's helpers.

Both runners read this: pytest by itself, and ansible-test, which knows nothing of pyproject.toml.
"""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_ROOMS = sorted(path for path in _HERE.rglob("*") if path.is_dir() and path.name != "__pycache__")

for place in (_HERE.parents[1] / "plugins", _HERE, *_ROOMS):
    if str(place) not in sys.path:
        sys.path.append(str(place))
