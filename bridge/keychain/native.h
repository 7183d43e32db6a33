// Generic-password items of the macOS Keychain.
//
// Every function returns an OSStatus, 0 for success. Strings are UTF-8 and
// belong to the caller. *value that osr_keychain_get and osr_keychain_list
// return belongs to the caller, who gives it to osr_keychain_free, which
// overwrites it first.
#ifndef OSAURUS_KEYCHAIN_H
#define OSAURUS_KEYCHAIN_H

#include <stddef.h>
#include <stdint.h>

// How an item is kept.
enum {
	OSR_KEYCHAIN_PROTECTED = 1,  // in the data-protection keychain, else the login keychain
	OSR_KEYCHAIN_SYNCED = 2,     // synchronizable, readable while unlocked
	OSR_KEYCHAIN_PRESENCE = 4,   // this device only, and only with the person there
};

int32_t osr_keychain_put(const char *service, const char *account, const void *value, size_t len, int how);
int32_t osr_keychain_get(const char *service, const char *account, int how, void **value, size_t *len);
int32_t osr_keychain_delete(const char *service, const char *account, int how);

// osr_keychain_list returns the accounts of a service, each ended by a NUL.
int32_t osr_keychain_list(const char *service, int how, void **value, size_t *len);
void osr_keychain_free(void *value, size_t len);

#ifndef __APPLE__
// osr_keychain_fake makes every call of the fake answer this status; 0 ends it.
// When only_protected is set, calls without OSR_KEYCHAIN_PROTECTED work.
void osr_keychain_fake(int32_t status, int only_protected);
#endif

#endif
