// An app that embeds the host: it starts one, creates the identity, says where
// it is, approves the one request that comes with a validity it is told, and
// stops when its input ends.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "osaurus.h"

// What the SQL library holds is known to Go objects alone, and the sanitizer
// does not search Go's memory, so that is counted instead: after a stop nothing
// is left but the connection of 68 KB that prepares the library, once for the
// process. Everything else counts for the sanitizer.
long long sqlite3_memory_used(void);
enum { IDLE = 96 * 1024 };
const char *__lsan_default_suppressions(void) { return "leak:sqlite3MemMalloc\n"; }
const char *__lsan_default_options(void) { return "print_suppressions=0"; }

static void must(int ok, const char *what, char *error) {
	if (ok)
		return;
	fprintf(stderr, "%s: %s\n", what, error == NULL ? "failed" : error);
	exit(1);
}

// field copies the string value of a key of flat JSON.
static char *field(const char *json, const char *key) {
	char name[64];
	snprintf(name, sizeof name, "\"%s\":\"", key);
	const char *at = strstr(json, name);
	must(at != NULL, key, NULL);
	at += strlen(name);
	return strndup(at, strcspn(at, "\""));
}

static void say(const char *word, char *text) {
	printf("%s %s\n", word, text);
	fflush(stdout);
	osaurus_free(text);
}

int main(int argc, char **argv) {
	char config[4096], *error = NULL;

	must(argc == 3, "want a home and a validity", NULL);
	must(osaurus_start("{\"home\":\"x\",\"unknown\":1}", NULL, &error) == 0 && error != NULL, "an unknown key was taken", NULL);
	osaurus_free(error);
	must(osaurus_start("{}", NULL, NULL) == 0, "no home was taken", NULL);
	must(osaurus_state(7) == NULL && osaurus_next_event(7, 0) == NULL && osaurus_create_identity(7, NULL) == NULL, "no host answered", NULL);
	osaurus_free(NULL);

	snprintf(config, sizeof config, "{\"home\":\"%s\",\"port\":0,\"version\":\"embedded\",\"portable\":true}", argv[1]);
	uint64_t host = osaurus_start(config, "a passphrase", &error);
	must(host != 0 && error == NULL, "start", error);
	must(osaurus_start(config, "a passphrase", &error) == 0 && error != NULL, "a second host in the same home", NULL);
	osaurus_free(error);

	char *identity = osaurus_create_identity(host, &error);
	must(identity != NULL, "create", error);
	char *phrase = field(identity, "phrase");
	int words = 1;
	for (const char *p = phrase; *p != 0; p++)
		words += *p == ' ';
	must(words == 24, "words of the phrase", NULL);
	free(phrase);
	osaurus_free(identity);
	must(osaurus_create_identity(host, &error) == NULL && error != NULL, "a second identity", NULL);
	osaurus_free(error);

	must(osaurus_next_event(host, 0) == NULL, "an event before anything happened", NULL); // attaches
	say("state", osaurus_state(host));

	char *asked = osaurus_next_event(host, 60000);
	must(asked != NULL && strstr(asked, "\"event\":\"approval\"") != NULL, "no request came", asked);
	char *id = field(asked, "id");
	say("event", asked);
	error = osaurus_answer(host, "0000", "90d");
	must(error != NULL, "a request that is not there was answered", NULL);
	osaurus_free(error);
	error = osaurus_answer(host, id, "forever");
	must(error != NULL, "an unknown validity was taken", NULL);
	osaurus_free(error);
	error = osaurus_answer(host, id, argv[2]);
	must(error == NULL, "answer", error);
	free(id);
	char *ended = osaurus_next_event(host, 60000);
	must(ended != NULL, "the request did not end", NULL);
	say("event", ended);

	while (getchar() != EOF) {
	}
	must(sqlite3_memory_used() > IDLE, "no store was open", NULL);
	error = osaurus_stop(host);
	must(sqlite3_memory_used() < IDLE, "a store is open after the stop", NULL);
	must(error == NULL, "stop", error);
	must(osaurus_state(host) == NULL, "a stopped host has a state", NULL);
	error = osaurus_stop(host);
	must(error != NULL, "a host stopped twice", NULL);
	osaurus_free(error);
	return 0;
}
