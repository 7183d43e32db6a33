// Declarations of Apple's Security framework, as far as we use it, written
// from its documentation.
#include <stddef.h>
#include <stdint.h>
typedef int32_t OSStatus;
typedef const void *CFTypeRef;
typedef const struct __CFString *CFStringRef;
typedef const struct __CFBoolean *CFBooleanRef;
typedef const struct __CFDictionary *CFDictionaryRef;
typedef const struct __CFAllocator *CFAllocatorRef;
typedef struct __CFError *CFErrorRef;
typedef struct __SecAccessControl *SecAccessControlRef;
typedef unsigned long CFOptionFlags;
typedef CFOptionFlags SecAccessControlCreateFlags;
enum { errSecSuccess = 0, errSecAllocate = -108, errSecParam = -50, errSecItemNotFound = -25300 };
enum { kSecAccessControlUserPresence = 1u << 0 };
extern const CFBooleanRef kCFBooleanTrue, kCFBooleanFalse;
extern const CFStringRef kSecClass, kSecClassGenericPassword, kSecAttrService, kSecAttrAccount, kSecAttrLabel, kSecAttrSynchronizable, kSecAttrSynchronizableAny,
	kSecAttrAccessible, kSecAttrAccessibleWhenUnlocked, kSecAttrAccessibleWhenUnlockedThisDeviceOnly, kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly, kSecAttrAccessControl,
	kSecUseDataProtectionKeychain, kSecUseAuthenticationUI, kSecUseAuthenticationUISkip, kSecValueData, kSecReturnData, kSecReturnAttributes, kSecMatchLimit, kSecMatchLimitOne,
	kSecMatchLimitAll;
extern OSStatus SecItemAdd(CFDictionaryRef attributes, CFTypeRef *result);
extern OSStatus SecItemUpdate(CFDictionaryRef query, CFDictionaryRef attributesToUpdate);
extern OSStatus SecItemCopyMatching(CFDictionaryRef query, CFTypeRef *result);
extern OSStatus SecItemDelete(CFDictionaryRef query);
extern SecAccessControlRef SecAccessControlCreateWithFlags(CFAllocatorRef allocator, CFTypeRef protection, SecAccessControlCreateFlags flags, CFErrorRef *error);
extern void CFRelease(CFTypeRef cf);
