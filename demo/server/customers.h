// Copyright (c) 2026 cgl.livepatch contributors
// GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
// SPDX-License-Identifier: GPL-2.0-or-later
//
// What the server knows of its customers.

#ifndef CUSTOMERS_H
#define CUSTOMERS_H

#include <stddef.h>

// Write the answer to the question NAME, a line, into ANSWER of SIZE bytes. Returns its length.
size_t answer_question(const char *name, char *answer, size_t size);

#endif
