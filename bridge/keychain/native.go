//go:build darwin || linux

package keychain

// #cgo CFLAGS: -Wall
// #cgo darwin CFLAGS: -fno-objc-arc -mmacosx-version-min=13.0
// #cgo darwin LDFLAGS: -framework Foundation -framework Security
// #include <stdlib.h>
// #include "native.h"
import "C"

import (
	"bytes"
	"unsafe"

	"osaurus/engine/secret"
)

// How an item is kept, see native.h.
const (
	protected = C.OSR_KEYCHAIN_PROTECTED
	synced    = C.OSR_KEYCHAIN_SYNCED
	presence  = C.OSR_KEYCHAIN_PRESENCE
)

// named passes copies of two names to f and frees them when it returns.
func named(service, account string, f func(service, account *C.char) status) status {
	s, a := C.CString(service), C.CString(account)
	defer C.free(unsafe.Pointer(s))
	defer C.free(unsafe.Pointer(a))
	return f(s, a)
}

func nativePut(service, account string, value secret.Bytes, how int) status {
	v := value.Expose()
	return named(service, account, func(s, a *C.char) status {
		return status(C.osr_keychain_put(s, a, unsafe.Pointer(unsafe.SliceData(v)), C.size_t(len(v)), C.int(how)))
	})
}

func nativeGet(service, account string, how int) (value secret.Bytes, st status) {
	var p unsafe.Pointer
	var n C.size_t
	st = named(service, account, func(s, a *C.char) status { return status(C.osr_keychain_get(s, a, C.int(how), &p, &n)) })
	if st != ok {
		return secret.Bytes{}, st
	}
	defer C.osr_keychain_free(p, n)
	return secret.New(unsafe.Slice((*byte)(p), int(n))), ok
}

func nativeDelete(service, account string, how int) status {
	return named(service, account, func(s, a *C.char) status { return status(C.osr_keychain_delete(s, a, C.int(how))) })
}

func nativeList(service string, how int) (accounts []string, st status) {
	var p unsafe.Pointer
	var n C.size_t
	st = named(service, "", func(s, _ *C.char) status { return status(C.osr_keychain_list(s, C.int(how), &p, &n)) })
	if st != ok {
		return nil, st
	}
	defer C.osr_keychain_free(p, n)
	for name := range bytes.SplitSeq(bytes.TrimSuffix(C.GoBytes(p, C.int(n)), []byte{0}), []byte{0}) {
		accounts = append(accounts, string(name))
	}
	return accounts, ok
}
