#include "native.h"

#import <Foundation/Foundation.h>
#import <UserNotifications/UserNotifications.h>

#include "_cgo_export.h"

// Compiled without ARC. The delegate and the categories live as long as the
// process, so they are never released.

static NSString *text(const char *s) { return [NSString stringWithUTF8String:s]; }

@interface OsaurusNotices : NSObject <UNUserNotificationCenterDelegate>
@end

@implementation OsaurusNotices

- (void)userNotificationCenter:(UNUserNotificationCenter *)center
	didReceiveNotificationResponse:(UNNotificationResponse *)response
	withCompletionHandler:(void (^)(void))done {
	NSString *action = [response actionIdentifier];
	if ([action isEqualToString:UNNotificationDefaultActionIdentifier])
		action = @"default";
	if (![action isEqualToString:UNNotificationDismissActionIdentifier]) {
		NSString *notice = [[[response notification] request] identifier];
		osrNotified((char *)[notice UTF8String], (char *)[action UTF8String]);
	}
	done();
}

- (void)userNotificationCenter:(UNUserNotificationCenter *)center
	willPresentNotification:(UNNotification *)notification
	withCompletionHandler:(void (^)(UNNotificationPresentationOptions))done {
	done(UNNotificationPresentationOptionBanner | UNNotificationPresentationOptionList | UNNotificationPresentationOptionSound);
}

@end

int osr_notify_start(const char *review, const char *deny) {
	@autoreleasepool {
		// currentNotificationCenter throws in a process without a bundle, and an
		// exception that crosses Go ends it.
		NSBundle *bundle = [NSBundle mainBundle];
		if ([bundle bundleIdentifier] == nil || ![[bundle bundlePath] hasSuffix:@".app"])
			return -1;
		UNUserNotificationCenter *center = [UNUserNotificationCenter currentNotificationCenter];
		[center setDelegate:[[OsaurusNotices alloc] init]];
		UNNotificationAction *look = [UNNotificationAction actionWithIdentifier:@"review" title:text(review) options:UNNotificationActionOptionForeground];
		UNNotificationAction *refuse = [UNNotificationAction actionWithIdentifier:@"deny" title:text(deny) options:UNNotificationActionOptionDestructive];
		UNNotificationCategory *ask = [UNNotificationCategory categoryWithIdentifier:@"ask"
			actions:[NSArray arrayWithObjects:look, refuse, nil]
			intentIdentifiers:[NSArray array]
			options:UNNotificationCategoryOptionNone];
		[center setNotificationCategories:[NSSet setWithObject:ask]];
		[center requestAuthorizationWithOptions:UNAuthorizationOptionAlert | UNAuthorizationOptionSound
			completionHandler:^(BOOL granted, NSError *error) {
			}];
		return 0;
	}
}

void osr_notify_show(const char *notice, const char *title, const char *body, int ask) {
	@autoreleasepool {
		UNMutableNotificationContent *content = [[[UNMutableNotificationContent alloc] init] autorelease];
		[content setTitle:text(title)];
		[content setBody:text(body)];
		[content setSound:[UNNotificationSound defaultSound]];
		if (ask)
			[content setCategoryIdentifier:@"ask"];
		UNNotificationRequest *request = [UNNotificationRequest requestWithIdentifier:text(notice) content:content trigger:nil];
		[[UNUserNotificationCenter currentNotificationCenter] addNotificationRequest:request withCompletionHandler:nil];
	}
}

void osr_notify_remove(const char *notice) {
	@autoreleasepool {
		NSArray *ids = [NSArray arrayWithObject:text(notice)];
		UNUserNotificationCenter *center = [UNUserNotificationCenter currentNotificationCenter];
		[center removePendingNotificationRequestsWithIdentifiers:ids];
		[center removeDeliveredNotificationsWithIdentifiers:ids];
	}
}
