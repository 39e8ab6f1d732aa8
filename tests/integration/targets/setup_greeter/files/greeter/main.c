/* Copyright (c) 2026 cgl.livepatch contributors
 * GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
 * SPDX-License-Identifier: GPL-2.0-or-later */
/* greeter [FILE [THREADS]]: says what it has to say into FILE, again and again, until it is ended; further threads sleep.
 * FILE "-" is what it was given as its output, and "daemon" that, too, of a process of its own in the background. Where
 * systemd wants to know when it is ready, it says so (sd_notify(3)). */
#define _GNU_SOURCE
#include "greeting.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void tell_ready(const char *path)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strncpy(to.sun_path, path, sizeof to.sun_path - 1);
	sendto(fd, "READY=1", 7, 0, (struct sockaddr *)&to, sizeof to);
	close(fd);
}

static void *sleeper(void *unused)
{
	for (;;)
		pause();
	return unused;
}

int main(int count, char **words)
{
	char text[32], line[64];
	const char *name = count > 1 ? words[1] : "-";
	int in_background = !strcmp(name, "daemon");
	int given = in_background || !strcmp(name, "-");
	int file = given ? STDOUT_FILENO : open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	int threads = count > 2 ? atoi(words[2]) : 0;

	if (file < 0) {
		perror(name);
		return 1;
	}
	if (in_background && daemon(1, 1) < 0)
		return 1;
	if (getenv("NOTIFY_SOCKET"))
		tell_ready(getenv("NOTIFY_SOCKET"));
	while (threads-- > 0) {
		pthread_t thread;

		pthread_create(&thread, NULL, sleeper, NULL);
	}
	for (;;) {
		greet(text, sizeof text);
		/* Always as long, so that a reader sees one whole line. */
		int length = snprintf(line, sizeof line, "%-16s%6d\n", text, price(7));
		if (pwrite(file, line, (size_t)length, 0) < 0)
			return 1;
		usleep(20000);
	}
}
