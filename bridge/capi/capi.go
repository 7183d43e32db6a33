// The engine as a C archive, with the API of osaurus.h. This file marshals;
// host.go decides.
//
//	go build -buildmode=c-archive -o libosaurus.a ./bridge/capi
package main

// #include <stdint.h>
// #include <stdlib.h>
// typedef const char osaurus_text;
import "C"

import (
	"encoding/json"
	"errors"
	"sync"
	"time"
	"unsafe"

	"osaurus/engine/secret"
)

func main() {}

// hosts are those that were started, by number.
var hosts struct {
	mu   sync.Mutex
	last uint64
	all  map[uint64]*host
}

var errNoHost = errors.New("this number is no host")

func find(number C.uint64_t) *host {
	hosts.mu.Lock()
	defer hosts.mu.Unlock()
	return hosts.all[uint64(number)]
}

// out copies bytes into C memory, which osaurus_free frees.
func out(raw []byte) *C.char {
	p := C.malloc(C.size_t(len(raw) + 1))
	into := unsafe.Slice((*byte)(p), len(raw)+1)
	into[copy(into, raw)] = 0
	return (*C.char)(p)
}

func outJSON(v any) *C.char {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil // types of ours, which marshal
	}
	return out(raw)
}

func outError(err error) *C.char {
	if err == nil {
		return nil
	}
	return out([]byte(err.Error()))
}

func fail(into **C.char, err error) {
	if into != nil {
		*into = outError(err)
	}
}

func in(text *C.osaurus_text) string { return C.GoString((*C.char)(unsafe.Pointer(text))) }

//export osaurus_start
func osaurus_start(configuration, passphrase *C.osaurus_text, failure **C.char) C.uint64_t {
	fail(failure, nil)
	c, err := parseConfig(in(configuration))
	if err != nil {
		fail(failure, err)
		return 0
	}
	var p secret.Bytes
	if passphrase != nil {
		n := 0
		for *(*byte)(unsafe.Add(unsafe.Pointer(passphrase), n)) != 0 {
			n++
		}
		p = secret.New(unsafe.Slice((*byte)(unsafe.Pointer(passphrase)), n))
		defer p.Destroy()
	}
	h, err := start(c, p)
	if err != nil {
		fail(failure, err)
		return 0
	}
	hosts.mu.Lock()
	defer hosts.mu.Unlock()
	if hosts.all == nil {
		hosts.all = map[uint64]*host{}
	}
	hosts.last++
	hosts.all[hosts.last] = h
	return C.uint64_t(hosts.last)
}

//export osaurus_stop
func osaurus_stop(number C.uint64_t) *C.char {
	hosts.mu.Lock()
	h := hosts.all[uint64(number)]
	delete(hosts.all, uint64(number))
	hosts.mu.Unlock()
	if h == nil {
		return outError(errNoHost)
	}
	return outError(h.stop())
}

//export osaurus_state
func osaurus_state(number C.uint64_t) *C.char {
	if h := find(number); h != nil {
		return outJSON(h.state())
	}
	return nil
}

//export osaurus_next_event
func osaurus_next_event(number C.uint64_t, milliseconds C.int32_t) *C.char {
	h := find(number)
	if h == nil {
		return nil
	}
	e, ok := h.next(time.Duration(max(0, milliseconds)) * time.Millisecond)
	if !ok {
		return nil
	}
	return outJSON(e)
}

//export osaurus_answer
func osaurus_answer(number C.uint64_t, id, validity *C.osaurus_text) *C.char {
	h := find(number)
	if h == nil {
		return outError(errNoHost)
	}
	return outError(h.answer(in(id), in(validity)))
}

//export osaurus_create_identity
func osaurus_create_identity(number C.uint64_t, failure **C.char) *C.char {
	fail(failure, nil)
	h := find(number)
	if h == nil {
		fail(failure, errNoHost)
		return nil
	}
	raw, err := h.createIdentity()
	defer clear(raw)
	if err != nil {
		fail(failure, err)
		return nil
	}
	return out(raw)
}

//export osaurus_free
func osaurus_free(text *C.char) {
	if text == nil {
		return
	}
	p := unsafe.Pointer(text)
	for n := 0; *(*byte)(unsafe.Add(p, n)) != 0; n++ {
		*(*byte)(unsafe.Add(p, n)) = 0
	}
	C.free(p)
}
