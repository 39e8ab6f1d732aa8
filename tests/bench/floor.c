// Copyright (c) 2026 cgl.livepatch contributors
// GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
// SPDX-License-Identifier: GPL-2.0-or-later
// The floor under any stop of all threads: SEIZE, INTERRUPT, waitpid, GETREGSET, DETACH for each thread, and nothing else.
//
// floor PID; prints the time from the first INTERRUPT to the last DETACH, microseconds.
#define _GNU_SOURCE
#include <dirent.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>

static long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000L + time.tv_nsec;
}

int main(int count, char **words)
{
    static pid_t threads[8192];
    static struct user_regs_struct registers;
    int found = 0;
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/task", count > 1 ? words[1] : "self");
    DIR *folder = opendir(path);
    if (!folder) {
        perror(path);
        return 1;
    }
    for (struct dirent *entry; (entry = readdir(folder)) && found < 8192;)
        if (entry->d_name[0] != '.')
            threads[found++] = atoi(entry->d_name);
    for (int index = 0; index < found; index++)
        if (ptrace(PTRACE_SEIZE, threads[index], 0, 0)) {
            perror("PTRACE_SEIZE");
            return 1;
        }
    long began = now();
    for (int index = 0; index < found; index++)
        ptrace(PTRACE_INTERRUPT, threads[index], 0, 0);
    for (int index = 0; index < found; index++) {
        waitpid(threads[index], NULL, __WALL);
        struct iovec vector = {&registers, sizeof registers};
        ptrace(PTRACE_GETREGSET, threads[index], NT_PRSTATUS, &vector);
    }
    for (int index = 0; index < found; index++)
        ptrace(PTRACE_DETACH, threads[index], 0, 0);
    printf("%ld\n", (now() - began) / 1000);
    return 0;
}
