// The part of Apple's DNS-SD API (dns_sd.h) that the Go side calls.
//
// Ownership: a ref that osr_register, osr_browse, osr_resolve or osr_query
// filled in belongs to the caller until osr_free. The handle is passed back
// to the callbacks, which run inside osr_process of the same ref and never
// after osr_free; the caller deletes the handle after osr_free. Strings and
// bytes handed to a callback belong to the library and last for the call.
#ifndef OSAURUS_DNSSD_H
#define OSAURUS_DNSSD_H

#include <stdint.h>

typedef void *osr_ref;

// osr_load returns 0, or -1 where the system has no DNS-SD library.
int osr_load(void);

// Each returns 0 or a DNSServiceErrorType. The port is in host byte order.
int32_t osr_register(osr_ref *ref, uintptr_t handle, const char *name, const char *type, uint16_t port, uint16_t len, const void *txt);
int32_t osr_update(osr_ref ref, uint16_t len, const void *txt);
int32_t osr_browse(osr_ref *ref, uintptr_t handle, const char *type);
int32_t osr_resolve(osr_ref *ref, uintptr_t handle, const char *name, const char *type, const char *domain);
int32_t osr_query(osr_ref *ref, uintptr_t handle, const char *host, uint16_t rrtype);

// osr_fd returns the descriptor that becomes readable when osr_process has
// something to do.
int osr_fd(osr_ref ref);
int32_t osr_process(osr_ref ref);
void osr_free(osr_ref ref);

#endif
