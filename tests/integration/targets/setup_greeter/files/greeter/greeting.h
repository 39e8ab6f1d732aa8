/* Copyright (c) 2026 cgl.livepatch contributors
 * GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
 * SPDX-License-Identifier: GPL-2.0-or-later */
#include <stddef.h>

/* Write the greeting into text, at most size bytes with the final zero. */
void greet(char *text, size_t size);

/* What so many pieces cost. */
int price(int pieces);
