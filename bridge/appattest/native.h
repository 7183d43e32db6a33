// App Attest keys in the Secure Enclave (DeviceCheck).
//
// osr_appattest_key and osr_appattest_assert call osrAttested exactly once
// with the handle, on a thread of the system: a key id or an assertion, or an
// error code that is not 0. The bytes last for the call. The caller frees the
// handle after it.
#ifndef OSAURUS_APPATTEST_H
#define OSAURUS_APPATTEST_H

#include <stdint.h>

// osr_appattest_supported returns 1 where this machine has such keys, which is
// not the rule on Macs.
int osr_appattest_supported(void);
void osr_appattest_key(uintptr_t handle);
void osr_appattest_assert(uintptr_t handle, const char *key, const void *hash, int len);

#ifndef __APPLE__
// osr_appattest_fake sets whether the fake has keys, and the error of its calls.
void osr_appattest_fake(int supported, int error);
#endif

#endif
