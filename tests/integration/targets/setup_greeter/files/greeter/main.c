/* Copyright (c) 2026 cgl.livepatch contributors
 * GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
 * SPDX-License-Identifier: GPL-2.0-or-later */
/* greeter FILE [THREADS]: says what it has to say into FILE, again and again, until it is ended; further threads sleep. */
#include "greeting.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void *sleeper(void *unused)
{
	for (;;)
		pause();
	return unused;
}

int main(int count, char **words)
{
	char text[32], line[64];
	int file = count > 1 ? open(words[1], O_WRONLY | O_CREAT | O_TRUNC, 0644) : 1;
	int threads = count > 2 ? atoi(words[2]) : 0;

	if (file < 0) {
		perror(words[1]);
		return 1;
	}
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
