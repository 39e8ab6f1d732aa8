// Copyright (c) 2026 cgl.livepatch contributors
// GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
// SPDX-License-Identifier: GPL-2.0-or-later
//
// A client's connection: lines come in, an answer goes out for each.

#ifndef CONNECTION_H
#define CONNECTION_H

#include <stddef.h>

struct connection {
    int socket;
    size_t used;
    char line[64]; // what has come and is no whole line yet, `used` bytes
};

// Read what there is and answer every whole line in it. Returns -1 when the connection is over.
int serve(struct connection *client);

#endif
