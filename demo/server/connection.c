// Copyright (c) 2026 cgl.livepatch contributors
// GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
// SPDX-License-Identifier: GPL-2.0-or-later

#include "connection.h"
#include "customers.h"

#include <string.h>
#include <sys/socket.h>

static int send_all(int socket, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(socket, bytes, size, MSG_NOSIGNAL);
        if (sent < 0)
            return -1;
        bytes += sent;
        size -= (size_t)sent;
    }
    return 0;
}

int serve(struct connection *client)
{
    ssize_t got = recv(client->socket, client->line + client->used, sizeof client->line - client->used, 0);
    if (got <= 0)
        return -1;
    client->used += (size_t)got;
    char *end;
    while ((end = memchr(client->line, '\n', client->used)) != NULL) {
        char answer[128];
        *end = '\0';
        size_t size = answer_question(client->line, answer, sizeof answer);
        if (send_all(client->socket, answer, size) < 0)
            return -1;
        client->used -= (size_t)(end + 1 - client->line);
        memmove(client->line, end + 1, client->used);
    }
    return client->used == sizeof client->line ? -1 : 0;
}
