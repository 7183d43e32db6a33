// Declarations of Apple's DeviceCheck framework, as far as we use it, written
// from its documentation.
#import <Foundation/Foundation.h>
@interface DCAppAttestService : NSObject
+ (DCAppAttestService *)sharedService;
- (BOOL)isSupported;
- (void)generateKeyWithCompletionHandler:(void (^)(NSString *keyId, NSError *error))completionHandler;
- (void)generateAssertion:(NSString *)keyId clientDataHash:(NSData *)clientDataHash completionHandler:(void (^)(NSData *assertionObject, NSError *error))completionHandler;
@end
