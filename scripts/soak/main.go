// Command soak runs what takes too long for every change: a thousand killed
// processes, a fault at every system call, and stores of a gibibyte.
//
// Usage:
//
//	soak [-only name,name] [-list]
//
// It takes up to half an hour on two cores. The exit status is 0 when
// everything passed, 1 when something failed and 2 for a name that is none.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

type step struct {
	name, what string
	args       []string // of go test
}

var steps = []step{
	{"kills", "1,000 processes killed while they store rows and rotate the key", []string{"./engine/storage", "-run", "^TestKilled$", "-kills", "1000"}},
	{"faults", "kill, full disk and failed fsync at every system call of each operation", []string{"./engine/storage", "-run", "^TestSystemFaults$", "-faults"}},
	{"large", "1 GiB of chats and 10,000 attachments in 100 MiB of memory, cancelled and done", []string{"./engine/storage", "-run", "^TestLarge$", "-large", "1024", "-v"}},
	{"relay", "1,000 idle tunnels from 50 addresses and 200 streams over 4 hosts", []string{"./engine/relay/server", "-run", "^TestLoad$", "-tunnels", "1000", "-streams", "200", "-v"}},
	{"whole", "500 runs at once from 50 peers while keys, agents, the relay and the provider change", []string{"./engine", "-run", "^TestWhole$", "-hosts", "9", "-peers", "50", "-relayed", "6", "-runs", "10", "-rounds", "4", "-v"}},
	{"stock", "the tests of databases with the driver's own crypto", []string{"-tags=sqlite_fts5,sqlite_json,osaurus_stockcrypto", "./engine/storage/..."}},
}

func main() {
	only := flag.String("only", "", "comma-separated steps to run")
	list := flag.Bool("list", false, "list the steps and stop")
	flag.Parse()
	wanted := strings.FieldsFunc(*only, func(r rune) bool { return r == ',' })
	for _, name := range wanted {
		if !slices.ContainsFunc(steps, func(s step) bool { return s.name == name }) {
			fmt.Fprintf(os.Stderr, "soak: no step named %q; -list shows them\n", name)
			os.Exit(2)
		}
	}
	failed := 0
	for _, s := range steps {
		switch {
		case *list:
			fmt.Printf("%-8s %s\n", s.name, s.what)
		case len(wanted) == 0 || slices.Contains(wanted, s.name):
			if !s.run() {
				failed++
			}
		}
	}
	if failed > 0 {
		fmt.Printf("\n%d steps failed\n", failed)
		os.Exit(1)
	}
}

func (s step) run() bool {
	fmt.Printf("== %s: %s\n", s.name, s.what)
	start := time.Now()
	cmd := exec.Command("go", append([]string{"test", "-count=1", "-timeout", "60m"}, s.args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	fmt.Printf("   %s after %.0f s\n", map[bool]string{true: "passed", false: "FAILED"}[err == nil], time.Since(start).Seconds())
	return err == nil
}
