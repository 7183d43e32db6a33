#ifndef OSAURUS_STORAGE_CIPHER_H
#define OSAURUS_STORAGE_CIPHER_H

// Opens of this thread are keyed with n bytes at key until it is called with
// NULL. The caller keeps the memory alive meanwhile.
void osr_pending_key(const void *key, int n);

// Prepares the library once; returns an SQLite result code. With provider
// zero the library's own crypto stays. The connection it opens is never closed.
int osr_start(int provider);

// How many bytes the library has taken.
long long osr_memory_used(void);

#endif
