/*
 * The Osaurus host as a library, for an app that embeds it.
 *
 * Every char * that a function returns, or stores through error, belongs to
 * the caller, who gives it to osaurus_free, and to nothing else: it overwrites
 * the text before it frees it. Texts are UTF-8; those that are given stay the
 * caller's. error may be NULL. All functions may be called from any thread,
 * and none calls back. After osaurus_stop returned, a host's number is spent.
 */
#ifndef OSAURUS_H
#define OSAURUS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * osaurus_start opens a home and serves it. config is a JSON object:
 *   "home"      the directory, required
 *   "port"      where to listen; 0 takes a free one; absent: the home's setting
 *   "version"   of the app, for status
 *   "portable"  true: the sealed keystore file and the embedded mDNS in place
 *               of what the system offers
 * Keys that are not known are refused. passphrase opens a sealed keystore file;
 * NULL where there is none. Returns 0 on failure.
 */
uint64_t osaurus_start(const char *config, const char *passphrase, char **error);

/* osaurus_stop ends a host and waits until it left its home. It returns NULL,
 * or what went wrong. */
char *osaurus_stop(uint64_t host);

/* osaurus_state returns a JSON object: "running", "port", "agents" (id, name,
 * address), "status" as "osaurus status --json" prints it; NULL for a number
 * that is no host. */
char *osaurus_state(uint64_t host);

/*
 * osaurus_next_event waits up to that many milliseconds for what happens next
 * and returns it as a JSON object, or NULL where nothing did:
 *   {"event":"approval","prompt":{"id","agentId","agentName","connector","source","asked","expires"}}
 *   {"event":"approval_ended","id":"…","reason":"answered|expired|withdrawn"}
 *   {"event":"locked","error":"…"}        the keystore did not open; agents cannot sign
 *   {"event":"stopped","error":"…"}
 * While nobody asked for events within two minutes nobody approves, so
 * requests are denied at once, as without any approver.
 */
char *osaurus_next_event(uint64_t host, int32_t milliseconds);

/* osaurus_answer answers a request that waits: "session", "90d", "permanent"
 * or "deny". It returns NULL, or why it could not. */
char *osaurus_answer(uint64_t host, const char *id, const char *validity);

/* osaurus_create_identity mints the master and a first agent, and returns a
 * JSON object with "address", "phrase" and "recovery_code", to be shown once;
 * NULL on failure, and where there is an identity already. */
char *osaurus_create_identity(uint64_t host, char **error);

void osaurus_free(char *text);

#ifdef __cplusplus
}
#endif

#endif
