// The notification centre as far as the tests of the Go side need it.
#define _GNU_SOURCE
#include "native.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "_cgo_export.h"

enum { most = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int bundled;
static struct notice {
	char *id, *line;
} shown[most];

int osr_notify_start(const char *review, const char *deny) { return bundled ? 0 : -1; }

static struct notice *find(const char *id) {
	for (int i = 0; i < most; i++)
		if (id == NULL ? shown[i].id == NULL : shown[i].id != NULL && strcmp(shown[i].id, id) == 0)
			return &shown[i];
	return NULL;
}

static void forget(const char *id) {
	struct notice *n = find(id);
	if (n != NULL) {
		free(n->id);
		free(n->line);
		memset(n, 0, sizeof *n);
	}
}

void osr_notify_show(const char *id, const char *title, const char *text, int ask) {
	pthread_mutex_lock(&lock);
	forget(id);
	struct notice *n = find(NULL);
	if (n != NULL && asprintf(&n->line, "%s|%s|%s|%d\n", id, title, text, ask) >= 0)
		n->id = strdup(id);
	pthread_mutex_unlock(&lock);
}

void osr_notify_remove(const char *id) {
	pthread_mutex_lock(&lock);
	forget(id);
	pthread_mutex_unlock(&lock);
}

void osr_notify_fake_bundle(int in_bundle) { bundled = in_bundle; }

char *osr_notify_fake_shown(void) {
	pthread_mutex_lock(&lock);
	size_t size = 1;
	for (int i = 0; i < most; i++)
		size += shown[i].line == NULL ? 0 : strlen(shown[i].line);
	char *all = calloc(1, size);
	for (int i = 0; i < most; i++)
		if (shown[i].line != NULL)
			strcat(all, shown[i].line);
	pthread_mutex_unlock(&lock);
	return all;
}

void osr_notify_fake_choose(const char *id, const char *action) {
	osr_notify_remove(id);
	osrNotified((char *)id, (char *)action);
}
