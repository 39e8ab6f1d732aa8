// Copyright (c) 2026 cgl.livepatch contributors
// GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
// SPDX-License-Identifier: GPL-2.0-or-later

#include "customers.h"

#include <stdio.h>
#include <string.h>

struct customer {
    const char *name;
    const char *card;
    const char *pin;
};

static const struct customer customers[] = {
    {"ada", "4929 1385 0271 9012", "4711"},
    {"grace", "5412 7534 8821 4004", "1906"},
    {"dennis", "4556 0990 1128 7733", "1970"},
};

static const struct customer *find_customer(const char *name)
{
    for (size_t i = 0; i < sizeof customers / sizeof *customers; i++)
        if (strcmp(customers[i].name, name) == 0)
            return &customers[i];
    return NULL;
}

size_t answer_question(const char *name, char *answer, size_t size)
{
    const struct customer *customer = find_customer(name);
    if (customer == NULL)
        return (size_t)snprintf(answer, size, "no such customer\n");
    // A support desk asks this; nobody there needs the whole number, let alone the PIN.
    return (size_t)snprintf(answer, size, "%s: card %s, pin %s\n", customer->name, customer->card, customer->pin);
}
