# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a patch file has what the process's unwinder must know of its functions; a patch without it needs none.

TABLE is records as in .eh_frame. RECORD is struct object of libgcc (unwind-dw2-fde.h, the same since GCC 3.0), which
belongs to whoever registers a table. Behind it lie two words: one for who makes a thread call REGISTER, code that takes
no arguments, to note that first, and one that is 1 once REGISTER has registered the two.
"""

from __future__ import annotations

TABLE_SECTION, RECORD_SECTION = ".livepatch_frames", ".livepatch_record"
TABLE, RECORD, REGISTER = "livepatch$frames", "livepatch$record", "livepatch$register"
REGISTER_FUNCTION, REGISTER_VERSION = "__register_frame_info", "GCC_3.0"
# struct object: pc_begin, tbase, dbase, u (the table, or a sorted list made of it), s (flags), next.
SORTED_AT, FLAGS_AT, NEXT_AT, STARTED_AT, DONE_AT, RECORD_SIZE = 24, 32, 40, 48, 56, 64
IS_SORTED = 1
