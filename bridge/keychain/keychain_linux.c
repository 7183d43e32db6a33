// The Keychain as far as the tests of the Go side need it: items in memory,
// with the statuses that macOS gives.
#include "native.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { not_found = -25300, parameter = -50 };

struct item {
	char *service, *account;
	void *value;
	size_t len;
	int synced;
	struct item *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct item *items;
static int32_t forced;
static int forced_protected;

static int32_t refused(int how) {
	if (forced_protected && !(how & OSR_KEYCHAIN_PROTECTED))
		return 0;
	return forced;
}

static struct item **find(const char *service, const char *account) {
	struct item **at = &items;
	while (*at != NULL && (strcmp((*at)->service, service) != 0 || strcmp((*at)->account, account) != 0))
		at = &(*at)->next;
	return at;
}

static void *copied(const void *value, size_t len) {
	void *copy = malloc(len + 1);
	memcpy(copy, value, len);
	return copy;
}

int32_t osr_keychain_put(const char *service, const char *account, const void *value, size_t len, int how) {
	pthread_mutex_lock(&lock);
	int32_t status = refused(how);
	if (status == 0 && (how & OSR_KEYCHAIN_SYNCED) && (how & OSR_KEYCHAIN_PRESENCE))
		status = parameter; // macOS refuses access control on synchronizable items
	if (status == 0) {
		struct item **at = find(service, account);
		if (*at == NULL) {
			struct item *i = calloc(1, sizeof *i);
			i->service = strdup(service);
			i->account = strdup(account);
			i->next = items;
			items = i;
			at = &items;
		} else {
			osr_keychain_free((*at)->value, (*at)->len);
		}
		(*at)->value = copied(value, len);
		(*at)->len = len;
		(*at)->synced = (how & OSR_KEYCHAIN_SYNCED) != 0;
	}
	pthread_mutex_unlock(&lock);
	return status;
}

int32_t osr_keychain_get(const char *service, const char *account, int how, void **value, size_t *len) {
	pthread_mutex_lock(&lock);
	int32_t status = refused(how);
	struct item *i = *find(service, account);
	if (status == 0 && i == NULL)
		status = not_found;
	if (status == 0) {
		*value = copied(i->value, i->len);
		*len = i->len;
	}
	pthread_mutex_unlock(&lock);
	return status;
}

int32_t osr_keychain_delete(const char *service, const char *account, int how) {
	pthread_mutex_lock(&lock);
	int32_t status = refused(how);
	struct item **at = find(service, account);
	if (status == 0 && *at == NULL)
		status = not_found;
	if (status == 0) {
		struct item *i = *at;
		*at = i->next;
		osr_keychain_free(i->value, i->len);
		free(i->service);
		free(i->account);
		free(i);
	}
	pthread_mutex_unlock(&lock);
	return status;
}

int32_t osr_keychain_list(const char *service, int how, void **value, size_t *len) {
	pthread_mutex_lock(&lock);
	int32_t status = refused(how);
	char *names = NULL;
	size_t size = 0;
	for (struct item *i = items; status == 0 && i != NULL; i = i->next) {
		if (strcmp(i->service, service) != 0)
			continue;
		size_t n = strlen(i->account) + 1;
		names = realloc(names, size + n);
		memcpy(names + size, i->account, n);
		size += n;
	}
	pthread_mutex_unlock(&lock);
	if (status == 0 && names == NULL)
		status = not_found;
	*value = names;
	*len = size;
	return status;
}

void osr_keychain_free(void *value, size_t len) {
	if (value == NULL)
		return;
	volatile unsigned char *p = value;
	while (len-- > 0)
		*p++ = 0;
	free(value);
}

void osr_keychain_fake(int32_t status, int only_protected) {
	pthread_mutex_lock(&lock);
	forced = status;
	forced_protected = only_protected;
	pthread_mutex_unlock(&lock);
}
