package notify

// #include <stdlib.h>
// #include "native.h"
import "C"

import "unsafe"

// fakeBundle makes the fake centre one of a program in a bundle.
func fakeBundle() { C.osr_notify_fake_bundle(1) }

// fakeShown returns what the fake centre shows, a line for each notice.
func fakeShown() string {
	p := C.osr_notify_fake_shown()
	defer C.free(unsafe.Pointer(p))
	return C.GoString(p)
}

// fakeChoose acts as a person who chooses an action.
func fakeChoose(id, action string) {
	i, a := C.CString(id), C.CString(action)
	defer C.free(unsafe.Pointer(i))
	defer C.free(unsafe.Pointer(a))
	C.osr_notify_fake_choose(i, a)
}
