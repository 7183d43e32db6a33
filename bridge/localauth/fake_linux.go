package localauth

// #include "native.h"
import "C"

// What the fake does but to answer an LAError.
const (
	hangs     = 1
	noContext = 2
)

// fake sets what the fake dialog of Linux answers.
func fake(answer int) { C.osr_localauth_fake(C.int(answer)) }
