#include "native.h"

#import <Foundation/Foundation.h>
#import <LocalAuthentication/LocalAuthentication.h>

#include "_cgo_export.h"

// Compiled without ARC.

void *osr_localauth_begin(uintptr_t handle, const char *reason) {
	@autoreleasepool {
		LAContext *context = [[LAContext alloc] init];
		if (context == nil)
			return NULL;
		// Touch ID, or the password where there is none.
		[context evaluatePolicy:LAPolicyDeviceOwnerAuthentication
			localizedReason:[NSString stringWithUTF8String:reason]
			reply:^(BOOL success, NSError *error) {
				osrConfirmed(handle, success ? 0 : (int32_t)[error code]);
			}];
		return context;
	}
}

void osr_localauth_end(void *context) {
	@autoreleasepool {
		[(LAContext *)context invalidate];
		[(LAContext *)context release];
	}
}
