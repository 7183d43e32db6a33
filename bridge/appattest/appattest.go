//go:build darwin || linux

// Package appattest holds a device key in the Secure Enclave of a Mac that
// offers App Attest. Where it is not offered, which is the rule on Macs, the
// device is a software one. On other systems it runs against a fake, for tests.
package appattest

// #cgo CFLAGS: -Wall
// #cgo darwin CFLAGS: -fno-objc-arc -mmacosx-version-min=13.0
// #cgo darwin LDFLAGS: -framework Foundation -framework DeviceCheck
// #include <stdlib.h>
// #include "native.h"
import "C"

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"runtime/cgo"
	"strings"
	"sync"
	"time"
	"unsafe"

	"osaurus/engine/atomicfile"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
)

// patience bounds how long the system may take; the first key asks Apple.
const patience = 30 * time.Second

// maxKeyID bounds a key id in bytes; Apple's have 44.
const maxKeyID = 128

// Device is an identity.Hardware whose key's id is kept in a file.
type Device struct {
	file atomicfile.Document
	mu   sync.Mutex
}

var _ identity.Hardware = (*Device)(nil)

// New returns the device whose key id stands at path. It opens nothing yet.
func New(path string) *Device { return &Device{file: atomicfile.Plain(path)} }

// KeyID implements identity.Hardware.
func (d *Device) KeyID() (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if C.osr_appattest_supported() == 0 {
		return "", fault.New(fault.Unsupported, errors.New("this machine offers no App Attest"))
	}
	id, err := d.stored()
	if !errors.Is(err, fs.ErrNotExist) {
		return id, err
	}
	raw, err := wait(func(handle C.uintptr_t) { C.osr_appattest_key(handle) })
	if err != nil {
		return "", err
	}
	if len(raw) == 0 || len(raw) > maxKeyID {
		return "", fmt.Errorf("the system names an App Attest key in %d bytes", len(raw))
	}
	return string(raw), d.file.Write(append(raw, '\n'))
}

func (d *Device) stored() (id string, err error) {
	err = d.file.Read(func(raw []byte) error {
		id = strings.TrimSpace(string(raw))
		if id == "" || len(id) > maxKeyID {
			return errors.New("the App Attest key's id is damaged")
		}
		return nil
	})
	return id, err
}

// Assert implements identity.Hardware.
func (d *Device) Assert(hash [sha256.Size]byte) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id, err := d.stored()
	if err != nil {
		return nil, fmt.Errorf("the App Attest key: %w", err)
	}
	key := C.CString(id)
	return wait(func(handle C.uintptr_t) {
		defer C.free(unsafe.Pointer(key)) // it was copied
		C.osr_appattest_assert(handle, key, unsafe.Pointer(&hash[0]), sha256.Size)
	})
}

// answer is what the system calls back with.
type answer struct {
	raw  []byte
	code int32
}

// wait starts a call and waits for its answer. The handle is freed by the
// call back, because one that comes too late still comes.
func wait(start func(C.uintptr_t)) ([]byte, error) {
	answers := make(chan answer, 1)
	start(C.uintptr_t(cgo.NewHandle(answers)))
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case a := <-answers:
		if a.code != 0 {
			return nil, fmt.Errorf("the system answers App Attest with error %d", a.code)
		}
		return a.raw, nil
	case <-late.C:
		return nil, errors.New("the system does not answer App Attest")
	}
}

//export osrAttested
func osrAttested(handle C.uintptr_t, code C.int32_t, raw unsafe.Pointer, size C.int) {
	h := cgo.Handle(handle)
	if answers, ok := h.Value().(chan answer); ok {
		answers <- answer{C.GoBytes(raw, size), int32(code)}
	}
	h.Delete()
}
