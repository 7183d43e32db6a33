package cipher

/*
#include <stdint.h>
*/
import "C"

import (
	"crypto/rand"
	"runtime/cgo"
	"unsafe"
)

// What SQLite's callbacks return.
const (
	sqliteOK    = 0
	sqliteError = 1
)

// view is C memory as a slice; it must not outlive the call.
func view(p *C.uchar, n C.int) []byte {
	if p == nil || n <= 0 {
		return nil
	}
	return unsafe.Slice((*byte)(p), int(n))
}

func stateOf(ctx C.uintptr_t) *state {
	s, _ := cgo.Handle(ctx).Value().(*state) //nolint:errcheck // a nil state fails at its first use
	return s
}

//export osrOpen
func osrOpen() C.uintptr_t { return C.uintptr_t(cgo.NewHandle(&state{})) }

//export osrClose
func osrClose(ctx C.uintptr_t) {
	stateOf(ctx).wipe()
	cgo.Handle(ctx).Delete()
}

//export osrRandom
func osrRandom(p unsafe.Pointer, n C.int) C.int {
	_, _ = rand.Read(unsafe.Slice((*byte)(p), int(n))) // never fails (crypto/rand)
	return sqliteOK
}

//export osrHMACSize
func osrHMACSize(algorithm C.int) C.int {
	h := hashOf(int(algorithm))
	if h == nil {
		return 0
	}
	return C.int(h().Size())
}

//export osrHMAC
func osrHMAC(ctx C.uintptr_t, algorithm C.int, key *C.uchar, keyN C.int, a *C.uchar, aN C.int, b *C.uchar, bN C.int, out *C.uchar) C.int {
	size := osrHMACSize(algorithm)
	if size == 0 || out == nil || a == nil {
		return sqliteError
	}
	if _, err := stateOf(ctx).sum(int(algorithm), view(key, keyN), view(a, aN), view(b, bN), view(out, size)); err != nil {
		clear(view(out, size))
		return sqliteError
	}
	return sqliteOK
}

//export osrKDF
func osrKDF(algorithm C.int, pass *C.uchar, passN C.int, salt *C.uchar, saltN, rounds, keyN C.int, key *C.uchar) C.int {
	if err := derive(int(algorithm), view(pass, passN), view(salt, saltN), int(rounds), view(key, keyN)); err != nil {
		clear(view(key, keyN))
		return sqliteError
	}
	return sqliteOK
}

//export osrCipher
func osrCipher(ctx C.uintptr_t, mode C.int, key *C.uchar, keyN C.int, iv, in *C.uchar, n C.int, out *C.uchar) C.int {
	if err := stateOf(ctx).crypt(int(mode), view(key, keyN), view(iv, 16), view(in, n), view(out, n)); err != nil {
		clear(view(out, n))
		return sqliteError
	}
	return sqliteOK
}
