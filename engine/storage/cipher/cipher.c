#include "cipher.h"

#include <stdint.h>
#include <stddef.h>

#include "_cgo_export.h"

// What the driver's copy of SQLite and SQLCipher exports; its headers cannot
// be included from another module.
typedef struct sqlite3 sqlite3;
extern int sqlite3_initialize(void);
extern long long sqlite3_memory_used(void);
extern int sqlite3_open(const char *, sqlite3 **);
extern int sqlite3_exec(sqlite3 *, const char *, void *, void *, char **);
extern int sqlite3_key(sqlite3 *, const void *, int);
extern int sqlite3_auto_extension(void (*)(void));
extern void *sqlcipher_malloc(uint64_t);

// sqlcipher_provider of SQLCipher 4.4: 17 functions in this order.
typedef struct {
  int (*activate)(void *);
  int (*deactivate)(void *);
  const char *(*get_provider_name)(void *);
  int (*add_random)(void *, void *, int);
  int (*random)(void *, void *, int);
  int (*hmac)(void *, int, unsigned char *, int, unsigned char *, int, unsigned char *, int, unsigned char *);
  int (*kdf)(void *, int, const unsigned char *, int, unsigned char *, int, int, int, unsigned char *);
  int (*cipher)(void *, int, unsigned char *, int, unsigned char *, unsigned char *, int, unsigned char *);
  const char *(*get_cipher)(void *);
  int (*get_key_sz)(void *);
  int (*get_iv_sz)(void *);
  int (*get_block_sz)(void *);
  int (*get_hmac_sz)(void *, int);
  int (*ctx_init)(void **);
  int (*ctx_free)(void **);
  int (*fips_status)(void *);
  const char *(*get_provider_version)(void *);
} provider;
extern int sqlcipher_register_provider(provider *);

static int nothing(void *ctx) { return 0; }
static int add_random(void *ctx, void *p, int n) { return 0; }
static const char *name(void *ctx) { return "osaurus"; }
static const char *version(void *ctx) { return "1"; }
static const char *algorithm(void *ctx) { return "aes-256-cbc"; }
static int key_size(void *ctx) { return 32; }
static int block_size(void *ctx) { return 16; }
static int hmac_size(void *ctx, int algorithm) { return osrHMACSize(algorithm); }
static int fill(void *ctx, void *p, int n) { return osrRandom(p, n); }

static int hmac(void *ctx, int a, unsigned char *key, int key_n, unsigned char *in, int in_n, unsigned char *in2, int in2_n, unsigned char *out) {
  return osrHMAC((uintptr_t)ctx, a, key, key_n, in, in_n, in2, in2_n, out);
}
static int kdf(void *ctx, int a, const unsigned char *pass, int pass_n, unsigned char *salt, int salt_n, int rounds, int key_n, unsigned char *key) {
  return osrKDF(a, (unsigned char *)pass, pass_n, salt, salt_n, rounds, key_n, key);
}
static int cipher(void *ctx, int mode, unsigned char *key, int key_n, unsigned char *iv, unsigned char *in, int n, unsigned char *out) {
  return osrCipher((uintptr_t)ctx, mode, key, key_n, iv, in, n, out);
}
static int ctx_init(void **ctx) {
  *ctx = (void *)osrOpen();
  return 0;
}
static int ctx_free(void **ctx) {
  osrClose((uintptr_t)*ctx);
  return 0;
}

static __thread const void *pending;
static __thread int pending_n;

void osr_pending_key(const void *key, int n) {
  pending = key;
  pending_n = n;
}

// Runs inside every sqlite3_open, before anything reads the file: parameters
// set after the first read would ask for a key that is already forgotten.
static int key_new_connection(sqlite3 *db, char **error, const void *api) {
  int rc;
  if (!pending) return 0;
  if ((rc = sqlite3_key(db, pending, pending_n))) return rc;
  return sqlite3_exec(db, "PRAGMA cipher_page_size = 4096; PRAGMA kdf_iter = 256000;", NULL, NULL, NULL);
}

int osr_start(int with_provider) {
  static const char any[] = "x'0000000000000000000000000000000000000000000000000000000000000000'";
  sqlite3 *db = NULL;
  int rc = sqlite3_initialize();
  if (rc) return rc;
  if (with_provider) {
    provider *p = sqlcipher_malloc(sizeof *p); // the library frees it
    if (!p) return 7;                          // SQLITE_NOMEM
    *p = (provider){nothing, nothing, name, add_random, fill, hmac, kdf, cipher, algorithm, key_size, block_size, block_size,
                    hmac_size, ctx_init, ctx_free, nothing, version};
    if ((rc = sqlcipher_register_provider(p))) return rc;
  }
  if ((rc = sqlite3_auto_extension((void (*)(void))key_new_connection))) return rc;
  // While one keyed connection lives the library keeps the provider; when the
  // last one closes it would fall back to its own without a word.
  if ((rc = sqlite3_open(":memory:", &db))) return rc;
  if ((rc = sqlite3_key(db, any, sizeof any - 1))) return rc;
  return sqlite3_exec(db, "PRAGMA cipher_memory_security = OFF", NULL, NULL, NULL);
}

long long osr_memory_used(void) { return sqlite3_memory_used(); }
