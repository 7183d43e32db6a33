#include "native.h"

#include <arpa/inet.h>
#include <stddef.h>

#include "_cgo_export.h"

// OSR_LINKED makes a system that is not macOS use its own dns_sd.h, which the
// tests do to hold the declarations below against it.
#if defined(__APPLE__) || defined(OSR_LINKED)
#include <dns_sd.h>
#else
#include <dlfcn.h>
#include <stdlib.h>

typedef struct _DNSServiceRef_t *DNSServiceRef;
typedef struct _DNSRecordRef_t *DNSRecordRef;
typedef uint32_t DNSServiceFlags;
typedef int32_t DNSServiceErrorType;
typedef void (*DNSServiceRegisterReply)(DNSServiceRef, DNSServiceFlags, DNSServiceErrorType, const char *, const char *, const char *, void *);
typedef void (*DNSServiceBrowseReply)(DNSServiceRef, DNSServiceFlags, uint32_t, DNSServiceErrorType, const char *, const char *, const char *, void *);
typedef void (*DNSServiceResolveReply)(DNSServiceRef, DNSServiceFlags, uint32_t, DNSServiceErrorType, const char *, const char *, uint16_t, uint16_t, const unsigned char *, void *);
typedef void (*DNSServiceQueryRecordReply)(DNSServiceRef, DNSServiceFlags, uint32_t, DNSServiceErrorType, const char *, uint16_t, uint16_t, uint16_t, const void *, uint32_t, void *);
#define kDNSServiceClass_IN 1
#endif

// The library's functions, found by name where it is not linked: a program
// that was built on a machine without it still uses it where it runs.
static struct {
	DNSServiceErrorType (*Register)(DNSServiceRef *, DNSServiceFlags, uint32_t, const char *, const char *, const char *, const char *, uint16_t, uint16_t, const void *, DNSServiceRegisterReply, void *);
	DNSServiceErrorType (*UpdateRecord)(DNSServiceRef, DNSRecordRef, DNSServiceFlags, uint16_t, const void *, uint32_t);
	DNSServiceErrorType (*Browse)(DNSServiceRef *, DNSServiceFlags, uint32_t, const char *, const char *, DNSServiceBrowseReply, void *);
	DNSServiceErrorType (*Resolve)(DNSServiceRef *, DNSServiceFlags, uint32_t, const char *, const char *, const char *, DNSServiceResolveReply, void *);
	DNSServiceErrorType (*QueryRecord)(DNSServiceRef *, DNSServiceFlags, uint32_t, const char *, uint16_t, uint16_t, DNSServiceQueryRecordReply, void *);
	int (*RefSockFD)(DNSServiceRef);
	DNSServiceErrorType (*ProcessResult)(DNSServiceRef);
	void (*RefDeallocate)(DNSServiceRef);
} sd;

#if defined(__APPLE__) || defined(OSR_LINKED)
int osr_load(void) {
	sd.Register = DNSServiceRegister;
	sd.UpdateRecord = DNSServiceUpdateRecord;
	sd.Browse = DNSServiceBrowse;
	sd.Resolve = DNSServiceResolve;
	sd.QueryRecord = DNSServiceQueryRecord;
	sd.RefSockFD = DNSServiceRefSockFD;
	sd.ProcessResult = DNSServiceProcessResult;
	sd.RefDeallocate = DNSServiceRefDeallocate;
	return 0;
}
#else
#define FIND(name) ((*(void **)&sd.name = dlsym(lib, "DNSService" #name)) == NULL)

int osr_load(void) {
	// Avahi's layer prints an advertisement for its own API otherwise.
	setenv("AVAHI_COMPAT_NOWARN", "1", 0);
	void *lib = dlopen("libdns_sd.so.1", RTLD_NOW | RTLD_LOCAL);
	if (lib == NULL)
		return -1;
	if (FIND(Register) || FIND(UpdateRecord) || FIND(Browse) || FIND(Resolve) || FIND(QueryRecord) || FIND(RefSockFD) || FIND(ProcessResult) || FIND(RefDeallocate)) {
		dlclose(lib);
		return -1;
	}
	return 0;
}
#endif

static void registered(DNSServiceRef ref, DNSServiceFlags flags, DNSServiceErrorType err, const char *name, const char *type, const char *domain, void *handle) {
	osrRegistered((uintptr_t)handle, err, (char *)name);
}

static void browsed(DNSServiceRef ref, DNSServiceFlags flags, uint32_t iface, DNSServiceErrorType err, const char *name, const char *type, const char *domain, void *handle) {
	osrBrowsed((uintptr_t)handle, flags, iface, err, (char *)name, (char *)type, (char *)domain);
}

static void resolved(DNSServiceRef ref, DNSServiceFlags flags, uint32_t iface, DNSServiceErrorType err, const char *full, const char *host, uint16_t port, uint16_t len, const unsigned char *txt, void *handle) {
	osrResolved((uintptr_t)handle, err, (char *)host, ntohs(port), (void *)txt, len);
}

static void queried(DNSServiceRef ref, DNSServiceFlags flags, uint32_t iface, DNSServiceErrorType err, const char *name, uint16_t rrtype, uint16_t rrclass, uint16_t len, const void *data, uint32_t ttl, void *handle) {
	osrQueried((uintptr_t)handle, flags, iface, err, (void *)data, len);
}

int32_t osr_register(osr_ref *ref, uintptr_t handle, const char *name, const char *type, uint16_t port, uint16_t len, const void *txt) {
	return sd.Register((DNSServiceRef *)ref, 0, 0, name, type, NULL, NULL, htons(port), len, txt, registered, (void *)handle);
}

int32_t osr_update(osr_ref ref, uint16_t len, const void *txt) { return sd.UpdateRecord(ref, NULL, 0, len, txt, 0); }

int32_t osr_browse(osr_ref *ref, uintptr_t handle, const char *type) {
	return sd.Browse((DNSServiceRef *)ref, 0, 0, type, NULL, browsed, (void *)handle);
}

int32_t osr_resolve(osr_ref *ref, uintptr_t handle, const char *name, const char *type, const char *domain) {
	return sd.Resolve((DNSServiceRef *)ref, 0, 0, name, type, domain, resolved, (void *)handle);
}

int32_t osr_query(osr_ref *ref, uintptr_t handle, const char *host, uint16_t rrtype) {
	return sd.QueryRecord((DNSServiceRef *)ref, 0, 0, host, rrtype, kDNSServiceClass_IN, queried, (void *)handle);
}

int osr_fd(osr_ref ref) { return sd.RefSockFD(ref); }

int32_t osr_process(osr_ref ref) { return sd.ProcessResult(ref); }

void osr_free(osr_ref ref) { sd.RefDeallocate(ref); }
