//go:build darwin || linux

// Package localauth asks the person at this Mac to confirm, by Touch ID or the
// password. On other systems it runs against a fake, for tests.
package localauth

// #cgo CFLAGS: -Wall
// #cgo darwin CFLAGS: -fno-objc-arc -mmacosx-version-min=13.0
// #cgo darwin LDFLAGS: -framework Foundation -framework LocalAuthentication
// #include <stdlib.h>
// #include "native.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"runtime/cgo"
	"unsafe"

	"osaurus/engine/fault"
	"osaurus/engine/identity"
)

// The answers that are told apart (LAError).
const (
	confirmed      = 0
	notInteractive = -1004
	passcodeNotSet = -5
)

// Presence is an identity.Presence.
type Presence struct{}

var _ identity.Presence = Presence{}

// Confirm implements identity.Presence. It returns once the dialog is gone;
// when ctx ends the dialog is taken away. Errors: fault.KeystoreDenied,
// fault.KeystoreLocked where nobody can be asked, and that of ctx.
func (Presence) Confirm(ctx context.Context, reason string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	answer := make(chan int32, 1)
	handle := cgo.NewHandle(answer)
	text := C.CString(reason)
	defer C.free(unsafe.Pointer(text))
	dialog := C.osr_localauth_begin(C.uintptr_t(handle), text)
	if dialog == nil {
		handle.Delete()
		return fault.New(fault.KeystoreLocked, errors.New("the person cannot be asked here"))
	}
	defer handle.Delete()
	select {
	case code := <-answer:
		C.osr_localauth_end(dialog)
		return result(code)
	case <-ctx.Done():
		C.osr_localauth_end(dialog)
		<-answer // called back exactly once: the handle can go
		return ctx.Err()
	}
}

func result(code int32) error {
	switch code {
	case confirmed:
		return nil
	case notInteractive:
		return fault.New(fault.KeystoreLocked, errors.New("the person cannot be asked here"))
	case passcodeNotSet:
		return fault.New(fault.KeystoreDenied, errors.New("this Mac has no password to confirm with"))
	}
	return fault.New(fault.KeystoreDenied, fmt.Errorf("not confirmed (%d)", code))
}

//export osrConfirmed
func osrConfirmed(handle C.uintptr_t, code C.int32_t) {
	if answer, ok := cgo.Handle(handle).Value().(chan int32); ok {
		answer <- int32(code)
	}
}
