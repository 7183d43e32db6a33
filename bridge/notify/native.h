// Notifications of macOS (UserNotifications).
//
// osr_notify_start returns 0, or -1 outside an app bundle, where the system
// would end the process. After it, osrNotified is called with the notice's id
// and the action that was chosen ("default" for a click on the notice itself),
// on a thread of the system; both strings last for the call. Nothing is called
// back for a notice that was dismissed. Strings given to a function belong to
// the caller and are copied.
#ifndef OSAURUS_NOTIFY_H
#define OSAURUS_NOTIFY_H

int osr_notify_start(const char *review, const char *deny);

// osr_notify_show shows a notice or replaces the one with that id. With ask
// it offers Review and Deny.
void osr_notify_show(const char *notice, const char *title, const char *text, int ask);
void osr_notify_remove(const char *notice);

#ifndef __APPLE__
// osr_notify_fake_bundle sets whether the fake runs in a bundle.
void osr_notify_fake_bundle(int bundled);
// osr_notify_fake_shown returns what is shown as lines "id|title|text|ask",
// which the caller frees.
char *osr_notify_fake_shown(void);
// osr_notify_fake_choose acts as a person who chooses an action.
void osr_notify_fake_choose(const char *notice, const char *action);
#endif

#endif
