//go:build darwin || linux

// Package notify shows notifications of macOS. What one offers never approves
// anything: it is Review, Deny, or a click that opens a pane. On other systems
// it runs against a fake, for tests.
package notify

// #cgo CFLAGS: -Wall
// #cgo darwin CFLAGS: -fno-objc-arc -mmacosx-version-min=13.0
// #cgo darwin LDFLAGS: -framework Foundation -framework UserNotifications
// #include <stdlib.h>
// #include "native.h"
import "C"

import (
	"errors"
	"sync"
	"unsafe"

	"osaurus/bridge/internal/plain"
)

// ErrNoBundle says that the program runs outside an app bundle, where macOS
// shows no notifications.
var ErrNoBundle = errors.New("notifications need the app, not the bare program")

// The actions that are called back.
const (
	Open   = "default" // a click on the notice
	Review = "review"
	Deny   = "deny"
)

// center is the one of this process, as macOS has it.
var center struct {
	mu      sync.Mutex
	started bool
	chosen  func(id, action string)
}

// Start makes notices possible. chosen is called with what the person chose,
// on a goroutine of its own. The labels are those of the two buttons.
func Start(reviewLabel, denyLabel string, chosen func(id, action string)) error {
	center.mu.Lock()
	defer center.mu.Unlock()
	center.chosen = chosen
	if center.started {
		return nil
	}
	err := error(nil)
	strings2(reviewLabel, denyLabel, func(review, deny *C.char) {
		if C.osr_notify_start(review, deny) != 0 {
			err = ErrNoBundle
		}
	})
	center.started = err == nil
	return err
}

// strings2 passes copies of two strings to f and frees them when it returns.
func strings2(a, b string, f func(a, b *C.char)) {
	ca, cb := C.CString(plain.Text(a)), C.CString(plain.Text(b))
	defer C.free(unsafe.Pointer(ca))
	defer C.free(unsafe.Pointer(cb))
	f(ca, cb)
}

func started() bool {
	center.mu.Lock()
	defer center.mu.Unlock()
	return center.started
}

// Show shows a notice, or replaces the one with that id. With ask it offers
// Review and Deny.
func Show(id, title, text string, ask bool) error {
	if !started() {
		return ErrNoBundle
	}
	var asks C.int
	if ask {
		asks = 1
	}
	body := C.CString(plain.Text(text))
	defer C.free(unsafe.Pointer(body))
	strings2(id, title, func(id, title *C.char) { C.osr_notify_show(id, title, body, asks) })
	return nil
}

// Remove takes a notice away.
func Remove(id string) {
	if started() {
		strings2(id, "", func(id, _ *C.char) { C.osr_notify_remove(id) })
	}
}

//export osrNotified
func osrNotified(id, action *C.char) {
	center.mu.Lock()
	chosen := center.chosen
	center.mu.Unlock()
	i, a := C.GoString(id), C.GoString(action)
	if chosen != nil && (a == Open || a == Review || a == Deny) {
		go chosen(i, a)
	}
}
