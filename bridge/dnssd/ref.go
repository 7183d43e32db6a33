package dnssd

// #cgo CFLAGS: -Wall -Werror=incompatible-pointer-types
// #cgo linux LDFLAGS: -ldl
// #include <stdlib.h>
// #include "native.h"
import "C"

import (
	"runtime/cgo"
	"sync"
	"unsafe"
)

// flagAdd is set in an event that adds (kDNSServiceFlagsAdd).
const flagAdd = 0x2

// Record types of a query.
const (
	typeA    = 1
	typeAAAA = 28
)

// event is what one callback said. The fields that count depend on the
// operation.
type event struct {
	err          error
	add          bool
	iface        uint32
	name         string // of the instance, or the host of a resolved one
	kind, domain string
	port         uint16
	data         []byte // a TXT record or an address
}

// ref is one operation that the responder does for us. Its callbacks only
// store what they were told: the loop passes it to seen when no call of the
// library is under way, so that seen may free any operation, this one too.
type ref struct {
	c      C.osr_ref
	handle cgo.Handle
	events []event
	seen   func(event)
}

var load = sync.OnceValue(func() error {
	if C.osr_load() != 0 {
		return ErrNoLibrary
	}
	return nil
})

// open starts an operation; what comes of it is told to seen.
func open(seen func(event), start func(c *C.osr_ref, handle C.uintptr_t) C.int32_t) (*ref, error) {
	if err := load(); err != nil {
		return nil, err
	}
	r := &ref{seen: seen}
	r.handle = cgo.NewHandle(r)
	// Alone in memory: cgo refuses a pointer into a struct with Go pointers.
	c := new(C.osr_ref)
	if err := status(start(c, C.uintptr_t(r.handle))); err != nil {
		r.handle.Delete()
		return nil, err
	}
	r.c = *c
	return r, nil
}

func status(code C.int32_t) error {
	if code == 0 {
		return nil
	}
	return Error(code)
}

// cstrings passes copies of strings to f and frees them when it returns.
func cstrings(f func(c []*C.char) C.int32_t, s ...string) C.int32_t {
	c := make([]*C.char, len(s))
	for i := range s {
		p := C.CString(s[i])
		defer C.free(unsafe.Pointer(p))
		c[i] = p
	}
	return f(c)
}

func register(name, kind string, port uint16, txt []byte, seen func(event)) (*ref, error) {
	return open(seen, func(c *C.osr_ref, handle C.uintptr_t) C.int32_t {
		return cstrings(func(s []*C.char) C.int32_t {
			return C.osr_register(c, handle, s[0], s[1], C.uint16_t(port), C.uint16_t(len(txt)), unsafe.Pointer(unsafe.SliceData(txt)))
		}, name, kind)
	})
}

// update replaces the TXT record of a registration.
func (r *ref) update(txt []byte) error {
	return status(C.osr_update(r.c, C.uint16_t(len(txt)), unsafe.Pointer(unsafe.SliceData(txt))))
}

func browse(kind string, seen func(event)) (*ref, error) {
	return open(seen, func(c *C.osr_ref, handle C.uintptr_t) C.int32_t {
		return cstrings(func(s []*C.char) C.int32_t { return C.osr_browse(c, handle, s[0]) }, kind)
	})
}

func resolve(name, kind, domain string, seen func(event)) (*ref, error) {
	return open(seen, func(c *C.osr_ref, handle C.uintptr_t) C.int32_t {
		return cstrings(func(s []*C.char) C.int32_t { return C.osr_resolve(c, handle, s[0], s[1], s[2]) }, name, kind, domain)
	})
}

func query(host string, rrtype uint16, seen func(event)) (*ref, error) {
	return open(seen, func(c *C.osr_ref, handle C.uintptr_t) C.int32_t {
		return cstrings(func(s []*C.char) C.int32_t { return C.osr_query(c, handle, s[0], C.uint16_t(rrtype)) }, host)
	})
}

func (r *ref) fd() int { return int(C.osr_fd(r.c)) }

func (r *ref) process() error { return status(C.osr_process(r.c)) }

// free ends the operation; a registration says goodbye.
func (r *ref) free() {
	C.osr_free(r.c)
	r.handle.Delete()
}

func deliver(handle C.uintptr_t, e event) {
	if r, ok := cgo.Handle(handle).Value().(*ref); ok {
		r.events = append(r.events, e)
	}
}

// text copies a string of the library; a null pointer is "".
func text(c *C.char) string { return C.GoString(c) }

//export osrRegistered
func osrRegistered(handle C.uintptr_t, err C.int32_t, name *C.char) {
	deliver(handle, event{err: status(err), name: text(name)})
}

//export osrBrowsed
func osrBrowsed(handle C.uintptr_t, flags, iface C.uint32_t, err C.int32_t, name, kind, domain *C.char) {
	deliver(handle, event{err: status(err), add: flags&flagAdd != 0, iface: uint32(iface), name: text(name), kind: text(kind), domain: text(domain)})
}

//export osrResolved
func osrResolved(handle C.uintptr_t, err C.int32_t, host *C.char, port C.uint16_t, txt unsafe.Pointer, size C.uint16_t) {
	deliver(handle, event{err: status(err), name: text(host), port: uint16(port), data: C.GoBytes(txt, C.int(size))})
}

//export osrQueried
func osrQueried(handle C.uintptr_t, flags, iface C.uint32_t, err C.int32_t, data unsafe.Pointer, size C.uint16_t) {
	deliver(handle, event{err: status(err), add: flags&flagAdd != 0, iface: uint32(iface), data: C.GoBytes(data, C.int(size))})
}
