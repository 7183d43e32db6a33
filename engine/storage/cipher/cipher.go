// Package cipher gives SQLCipher its keys and its crypto. Keys reach a new
// connection in C memory, never in a DSN or in SQL. The crypto provider uses
// Go's AES, SHA-2 and randomness, hardware instructions included, in place of
// the driver's portable C; the file format is the same (storage.md section
// 16.1). Build tag osaurus_stockcrypto leaves the driver's own crypto in
// place, for comparison.
//
// The package must be linked with github.com/mutecomm/go-sqlcipher/v4, whose
// symbols it uses.
package cipher

/*
#include "cipher.h"
*/
import "C"

import (
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	_ "github.com/mutecomm/go-sqlcipher/v4" // the library behind the symbols

	"osaurus/engine/secret"
)

// KeySize is the length of a raw key.
const KeySize = 32

// ErrKeySize refuses anything but a raw key: the library would take it for a
// passphrase.
var ErrKeySize = errors.New("cipher: want a raw key of 32 bytes")

var start = sync.OnceValue(func() error {
	provider := C.int(0)
	if Provider == goProvider {
		provider = 1
	}
	if rc := C.osr_start(provider); rc != 0 {
		return fmt.Errorf("cipher: preparing SQLCipher failed with code %d", int(rc))
	}
	return nil
})

// goProvider is the name of this package's provider, stockProvider of the
// driver's.
const (
	goProvider    = "osaurus"
	stockProvider = "libtomcrypt"
)

// Keyed runs open, which opens one connection on the calling goroutine, and
// has SQLCipher key it with the 32 bytes of key before it reads the file. It
// is safe for concurrent use.
func Keyed(key secret.Bytes, open func() error) error {
	if key.Len() != KeySize {
		return ErrKeySize
	}
	if err := start(); err != nil {
		return err
	}
	// The form that SQLCipher takes for a raw key: x'<64 hex digits>'.
	literal := make([]byte, 2+2*KeySize+1)
	defer clear(literal)
	literal[0], literal[1], literal[len(literal)-1] = 'x', '\'', '\''
	hex.Encode(literal[2:], key.Expose())

	var pin runtime.Pinner
	pin.Pin(&literal[0])
	defer pin.Unpin()
	runtime.LockOSThread() // the pending key belongs to a thread
	defer runtime.UnlockOSThread()
	C.osr_pending_key(unsafe.Pointer(&literal[0]), C.int(len(literal)))
	defer C.osr_pending_key(nil, 0)
	return open()
}

// MemoryUsed is how many bytes the library has taken for all connections.
func MemoryUsed() int64 { return int64(C.osr_memory_used()) }

// Unkeyed runs open for a connection to a plaintext file, after preparing the
// library as Keyed does.
func Unkeyed(open func() error) error {
	if err := start(); err != nil {
		return err
	}
	return open()
}
