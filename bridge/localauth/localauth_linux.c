// The system's dialog as far as the tests of the Go side need it.
#include "native.h"

#include <pthread.h>
#include <stdlib.h>

#include "_cgo_export.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int answers;

struct context {
	uintptr_t handle;
	int answer;
	pthread_t thread;
};

enum { app_cancel = -9 };

static void *reply(void *p) {
	struct context *c = p;
	osrConfirmed(c->handle, c->answer);
	return NULL;
}

void *osr_localauth_begin(uintptr_t handle, const char *reason) {
	pthread_mutex_lock(&lock);
	int answer = answers;
	pthread_mutex_unlock(&lock);
	if (answer == 2)
		return NULL;
	struct context *c = malloc(sizeof *c);
	c->handle = handle;
	c->answer = answer;
	if (answer != 1)
		pthread_create(&c->thread, NULL, reply, c);
	return c;
}

void osr_localauth_end(void *p) {
	struct context *c = p;
	if (c->answer == 1) {
		c->answer = app_cancel;
		pthread_create(&c->thread, NULL, reply, c);
	}
	pthread_join(c->thread, NULL);
	free(c);
}

void osr_localauth_fake(int answer) {
	pthread_mutex_lock(&lock);
	answers = answer;
	pthread_mutex_unlock(&lock);
}
