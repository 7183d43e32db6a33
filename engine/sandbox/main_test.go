package sandbox

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// built is where programs put what it built, for the end.
var built string

func TestMain(m *testing.M) {
	// net/http lingers half a second over a connection that it refused.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"), goleak.Cleanup(func(code int) {
		if built != "" {
			_ = os.RemoveAll(built)
		}
		os.Exit(code)
	}))
}
