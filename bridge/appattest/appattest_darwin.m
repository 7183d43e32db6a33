#include "native.h"

#include <string.h>

#import <DeviceCheck/DeviceCheck.h>
#import <Foundation/Foundation.h>

#include "_cgo_export.h"

// Compiled without ARC.

int osr_appattest_supported(void) {
	@autoreleasepool {
		return [[DCAppAttestService sharedService] isSupported] ? 1 : 0;
	}
}

static int32_t code(NSError *error) { return error == nil ? 0 : (int32_t)[error code] + 1; }

void osr_appattest_key(uintptr_t handle) {
	@autoreleasepool {
		[[DCAppAttestService sharedService] generateKeyWithCompletionHandler:^(NSString *key, NSError *error) {
			const char *name = key == nil ? "" : [key UTF8String];
			osrAttested(handle, code(error), (void *)name, (int)strlen(name));
		}];
	}
}

void osr_appattest_assert(uintptr_t handle, const char *key, const void *hash, int len) {
	@autoreleasepool {
		[[DCAppAttestService sharedService] generateAssertion:[NSString stringWithUTF8String:key]
			clientDataHash:[NSData dataWithBytes:hash length:(NSUInteger)len]
			completionHandler:^(NSData *assertion, NSError *error) {
				osrAttested(handle, code(error), (void *)[assertion bytes], (int)[assertion length]);
			}];
	}
}
