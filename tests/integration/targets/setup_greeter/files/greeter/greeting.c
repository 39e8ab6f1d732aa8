/* Copyright (c) 2026 cgl.livepatch contributors
 * GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
 * SPDX-License-Identifier: GPL-2.0-or-later */
/* What the greeter says: the code that the patches of the tests change. */
#include "greeting.h"

#include <stdio.h>

void greet(char *text, size_t size)
{
	snprintf(text, size, "Helo world");
}

int price(int pieces)
{
	return pieces * 3 + 1;
}
