// What cgo writes for the exported functions of the packages with .m files.
#include <stdint.h>
extern void osrConfirmed(uintptr_t handle, int32_t code);
extern void osrAttested(uintptr_t handle, int32_t code, void *raw, int size);
extern void osrNotified(char *id, char *action);
