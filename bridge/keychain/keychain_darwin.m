#include "native.h"

#include <stdlib.h>
#include <string.h>

#import <Foundation/Foundation.h>
#import <Security/Security.h>

// Compiled without ARC: what alloc, copy or Create returned is released here.

static NSString *text(const char *s) { return [NSString stringWithUTF8String:s]; }

// query names one item, or all of a service when account is NULL. It never
// shows anything: an item that needs the person fails instead.
static NSMutableDictionary *query(const char *service, const char *account, int how) {
	NSMutableDictionary *q = [NSMutableDictionary dictionary];
	[q setObject:(id)kSecClassGenericPassword forKey:(id)kSecClass];
	[q setObject:text(service) forKey:(id)kSecAttrService];
	if (account != NULL)
		[q setObject:text(account) forKey:(id)kSecAttrAccount];
	[q setObject:(id)kSecAttrSynchronizableAny forKey:(id)kSecAttrSynchronizable];
	if (how & OSR_KEYCHAIN_PROTECTED)
		[q setObject:(id)kCFBooleanTrue forKey:(id)kSecUseDataProtectionKeychain];
	return q;
}

static void silent(NSMutableDictionary *q, int how) {
	if (!(how & OSR_KEYCHAIN_PRESENCE))
		[q setObject:(id)kSecUseAuthenticationUISkip forKey:(id)kSecUseAuthenticationUI];
}

// protection adds who may read a new item, and when.
static OSStatus protection(NSMutableDictionary *q, int how) {
	if (how & OSR_KEYCHAIN_PRESENCE) {
		CFErrorRef failed = NULL;
		SecAccessControlRef access = SecAccessControlCreateWithFlags(NULL, kSecAttrAccessibleWhenUnlockedThisDeviceOnly, kSecAccessControlUserPresence, &failed);
		if (access == NULL) {
			if (failed != NULL)
				CFRelease(failed);
			return errSecParam;
		}
		[q setObject:(id)access forKey:(id)kSecAttrAccessControl];
		CFRelease(access);
		[q setObject:(id)kCFBooleanFalse forKey:(id)kSecAttrSynchronizable];
	} else if (how & OSR_KEYCHAIN_SYNCED) {
		[q setObject:(id)kSecAttrAccessibleWhenUnlocked forKey:(id)kSecAttrAccessible];
		[q setObject:(id)kCFBooleanTrue forKey:(id)kSecAttrSynchronizable];
	} else {
		[q setObject:(id)kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly forKey:(id)kSecAttrAccessible];
		[q setObject:(id)kCFBooleanFalse forKey:(id)kSecAttrSynchronizable];
	}
	return errSecSuccess;
}

int32_t osr_keychain_put(const char *service, const char *account, const void *value, size_t len, int how) {
	@autoreleasepool {
		NSMutableDictionary *found = query(service, account, how);
		silent(found, how);
		NSData *data = [NSData dataWithBytes:value length:len];
		NSDictionary *change = [NSDictionary dictionaryWithObject:data forKey:(id)kSecValueData];
		OSStatus status = SecItemUpdate((CFDictionaryRef)found, (CFDictionaryRef)change);
		if (status != errSecItemNotFound)
			return status;
		NSMutableDictionary *item = query(service, account, how);
		[item setObject:data forKey:(id)kSecValueData];
		[item setObject:[NSString stringWithFormat:@"Osaurus %@", text(account)] forKey:(id)kSecAttrLabel];
		status = protection(item, how);
		if (status != errSecSuccess)
			return status;
		return SecItemAdd((CFDictionaryRef)item, NULL);
	}
}

// give copies bytes into memory of the caller's.
static OSStatus give(NSData *data, void **value, size_t *len) {
	*len = [data length];
	*value = malloc(*len + 1);
	if (*value == NULL)
		return errSecAllocate;
	memcpy(*value, [data bytes], *len);
	return errSecSuccess;
}

int32_t osr_keychain_get(const char *service, const char *account, int how, void **value, size_t *len) {
	@autoreleasepool {
		NSMutableDictionary *q = query(service, account, how);
		silent(q, how);
		[q setObject:(id)kCFBooleanTrue forKey:(id)kSecReturnData];
		[q setObject:(id)kSecMatchLimitOne forKey:(id)kSecMatchLimit];
		CFTypeRef found = NULL;
		OSStatus status = SecItemCopyMatching((CFDictionaryRef)q, &found);
		if (status != errSecSuccess)
			return status;
		status = give((NSData *)found, value, len);
		CFRelease(found);
		return status;
	}
}

int32_t osr_keychain_delete(const char *service, const char *account, int how) {
	@autoreleasepool {
		return SecItemDelete((CFDictionaryRef)query(service, account, how));
	}
}

int32_t osr_keychain_list(const char *service, int how, void **value, size_t *len) {
	@autoreleasepool {
		NSMutableDictionary *q = query(service, NULL, how);
		[q setObject:(id)kCFBooleanTrue forKey:(id)kSecReturnAttributes];
		[q setObject:(id)kSecMatchLimitAll forKey:(id)kSecMatchLimit];
		CFTypeRef found = NULL;
		OSStatus status = SecItemCopyMatching((CFDictionaryRef)q, &found);
		if (status != errSecSuccess)
			return status;
		NSMutableData *names = [NSMutableData data];
		for (NSDictionary *item in (NSArray *)found) {
			const char *name = [(NSString *)[item objectForKey:(id)kSecAttrAccount] UTF8String];
			if (name != NULL)
				[names appendBytes:name length:strlen(name) + 1];
		}
		CFRelease(found);
		return give(names, value, len);
	}
}

void osr_keychain_free(void *value, size_t len) {
	if (value == NULL)
		return;
	volatile unsigned char *p = value;
	while (len-- > 0)
		*p++ = 0;
	free(value);
}
