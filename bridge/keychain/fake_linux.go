package keychain

// #include "native.h"
import "C"

// fake makes the fake Keychain of Linux answer st to every call, or to those
// of the data-protection keychain alone.
func fake(st status, onlyProtected bool) {
	var only C.int
	if onlyProtected {
		only = 1
	}
	C.osr_keychain_fake(C.int32_t(st), only)
}
