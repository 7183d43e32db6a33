package appattest

// #include "native.h"
import "C"

// fake sets whether the fake of Linux has keys, and the error of its calls.
func fake(supported bool, code int) {
	var has C.int
	if supported {
		has = 1
	}
	C.osr_appattest_fake(has, C.int(code))
}
