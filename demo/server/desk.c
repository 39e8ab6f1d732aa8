// Copyright (c) 2026 cgl.livepatch contributors
// GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
// SPDX-License-Identifier: GPL-2.0-or-later
//
// desk PORT: a server that answers lines, on connections that stay open, with a pool of threads.
//
// The main thread accepts; each worker waits for all its connections at once (epoll) and answers what comes. Nothing
// in here knows of live patching. An interrupted epoll_wait ends the server, as it does many a real one.

#include "connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WORKERS = 8, EVENTS = 32 };

static void fail(const char *what)
{
    perror(what);
    exit(EXIT_FAILURE);
}

static void *work(void *queue)
{
    struct epoll_event events[EVENTS];
    for (;;) {
        int ready = epoll_wait(*(int *)queue, events, EVENTS, -1);
        if (ready < 0)
            fail("epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct connection *client = events[i].data.ptr;
            if (serve(client) < 0) {
                close(client->socket);
                free(client);
            }
        }
    }
    return NULL;
}

static int listen_on(const char *port)
{
    int one = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0)
        fail("socket");
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, SOMAXCONN) < 0)
        fail(port);
    return listener;
}

static void start_workers(int queues[WORKERS])
{
    for (int i = 0; i < WORKERS; i++) {
        pthread_t thread;
        queues[i] = epoll_create1(EPOLL_CLOEXEC);
        if (queues[i] < 0)
            fail("epoll_create1");
        if ((errno = pthread_create(&thread, NULL, work, &queues[i])) != 0)
            fail("pthread_create");
    }
}

int main(int argc, char **argv)
{
    static int queues[WORKERS];
    if (argc != 2) {
        fprintf(stderr, "usage: %s PORT\n", argv[0]);
        return EXIT_FAILURE;
    }
    int listener = listen_on(argv[1]);
    start_workers(queues);
    for (int next = 0;; next = (next + 1) % WORKERS) {
        struct connection *client = calloc(1, sizeof *client);
        if (client == NULL || (client->socket = accept(listener, NULL, NULL)) < 0)
            fail("accept");
        int one = 1;
        setsockopt(client->socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
        if (epoll_ctl(queues[next], EPOLL_CTL_ADD, client->socket, &event) < 0)
            fail("epoll_ctl");
    }
}
