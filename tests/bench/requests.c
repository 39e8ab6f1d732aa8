// Copyright (c) 2026 cgl.livepatch contributors
// GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
// SPDX-License-Identifier: GPL-2.0-or-later
// Clients of a redis-server on loopback, each with one request at a time, and how long every request took.
//
// requests PORT CLIENTS SECONDS; prints the number of requests and the latencies p50 p99 p99.9 max, microseconds. Ends
// with status 1 when an answer is not the right one or a connection is lost.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MOST (8 << 20)

static int port;
static double until;
static float latencies[MOST];
static atomic_int counted, failed;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static void *client(void *nothing)
{
    static const char request[] = "*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n", answer[] = "+OK\r\n";
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int connection = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    char room[64];
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(connection, (struct sockaddr *)&address, sizeof address)) {
        failed = 1;
        return nothing;
    }
    for (double began = now(); began < until && !failed; began = now()) {
        if (write(connection, request, sizeof request - 1) != sizeof request - 1 ||
            read(connection, room, sizeof room) != sizeof answer - 1 || memcmp(room, answer, sizeof answer - 1))
            failed = 1;
        int index = counted++;
        if (index < MOST)
            latencies[index] = now() - began;
    }
    close(connection);
    return nothing;
}

static int ascending(const void *one, const void *two)
{
    float difference = *(const float *)one - *(const float *)two;
    return difference < 0 ? -1 : difference > 0;
}

int main(int count, char **words)
{
    static pthread_t threads[1024];
    if (count != 4)
        return 2;
    port = atoi(words[1]);
    int clients = atoi(words[2]);
    until = now() + atof(words[3]) * 1e6;
    for (int index = 0; index < clients; index++)
        pthread_create(&threads[index], NULL, client, NULL);
    for (int index = 0; index < clients; index++)
        pthread_join(threads[index], NULL);
    int all = counted < MOST ? counted : MOST;
    qsort(latencies, all, sizeof *latencies, ascending);
    printf("%d %.0f %.0f %.0f %.0f\n", all, latencies[all / 2], latencies[(int)(all * 0.99)],
           latencies[(int)(all * 0.999)], latencies[all - 1]);
    return failed;
}
