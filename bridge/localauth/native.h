// Asking the person at this Mac to confirm (LocalAuthentication).
//
// osr_localauth_begin shows the system's dialog and returns a context, or NULL
// where there is none to show; then nothing is called back. Otherwise
// osrConfirmed is called exactly once with the handle, on a thread of the
// system. osr_localauth_end releases the context and, when the dialog still
// stands, takes it away, which calls back too. The caller frees the handle
// after the call back.
#ifndef OSAURUS_LOCALAUTH_H
#define OSAURUS_LOCALAUTH_H

#include <stdint.h>

void *osr_localauth_begin(uintptr_t handle, const char *reason);
void osr_localauth_end(void *context);

#ifndef __APPLE__
// osr_localauth_fake sets what the fake answers: an LAError, 0 for yes, 1 for
// no answer until the end, 2 for no context.
void osr_localauth_fake(int answer);
#endif

#endif
