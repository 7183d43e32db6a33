// App Attest as far as the tests of the Go side need it: the assertion is the
// key id and the hash.
#include "native.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "_cgo_export.h"

static int supported, failure, keys;

struct reply {
	uintptr_t handle;
	int32_t code;
	int len;
	char bytes[256];
};

static void *call_back(void *p) {
	struct reply *r = p;
	osrAttested(r->handle, r->code, r->bytes, r->len);
	free(r);
	return NULL;
}

static void send(struct reply *r) {
	pthread_t thread;
	pthread_create(&thread, NULL, call_back, r);
	pthread_detach(thread);
}

static struct reply *new_reply(uintptr_t handle) {
	struct reply *r = calloc(1, sizeof *r);
	r->handle = handle;
	r->code = failure;
	return r;
}

int osr_appattest_supported(void) { return supported; }

void osr_appattest_key(uintptr_t handle) {
	struct reply *r = new_reply(handle);
	if (failure == 0)
		r->len = snprintf(r->bytes, sizeof r->bytes, "key-%d", ++keys);
	send(r);
}

void osr_appattest_assert(uintptr_t handle, const char *key, const void *hash, int len) {
	struct reply *r = new_reply(handle);
	if (failure == 0) {
		int n = snprintf(r->bytes, 128, "%s:", key);
		memcpy(r->bytes + n, hash, len);
		r->len = n + len;
	}
	send(r);
}

void osr_appattest_fake(int has, int error) {
	supported = has;
	failure = error;
}
