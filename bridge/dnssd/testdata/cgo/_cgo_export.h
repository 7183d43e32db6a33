// What cgo writes for the exported functions of ref.go, for checks of
// native.c by a C compiler alone.
#include <stdint.h>
extern void osrRegistered(uintptr_t handle, int32_t err, char *name);
extern void osrBrowsed(uintptr_t handle, uint32_t flags, uint32_t iface, int32_t err, char *name, char *kind, char *domain);
extern void osrResolved(uintptr_t handle, int32_t err, char *host, uint16_t port, void *txt, uint16_t size);
extern void osrQueried(uintptr_t handle, uint32_t flags, uint32_t iface, int32_t err, void *data, uint16_t size);
