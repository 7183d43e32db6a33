// Declarations of Apple's LocalAuthentication framework, as far as we use it,
// written from its documentation.
#import <Foundation/Foundation.h>
typedef NS_ENUM(NSInteger, LAPolicy) { LAPolicyDeviceOwnerAuthentication = 2 };
@interface LAContext : NSObject
- (void)evaluatePolicy:(LAPolicy)policy localizedReason:(NSString *)localizedReason reply:(void (^)(BOOL success, NSError *error))reply;
- (void)invalidate;
@end
