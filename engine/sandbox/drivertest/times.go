package drivertest

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"osaurus/engine/sandbox"
)

// Times tells what a service over a driver takes, with the programs that ship
// inside the guest. It is wall time: most passes in other processes.
type Times struct{ h *host }

// NewTimes opens a service with a sandbox for each agent. None is started.
func NewTimes(b testing.TB, subject Subject) Times {
	b.Helper()
	return Times{newHost(b, subject, true)}
}

// Start returns how long an agent waits for its place, from verifying the image
// to the token file, and ends the sandbox again.
func (t Times) Start() time.Duration {
	t.h.t.Helper()
	began := time.Now()
	if err := t.h.Provision(t.h.t.Context(), agentA); err != nil {
		t.h.t.Fatal(err)
	}
	took := time.Since(began)
	if err := t.h.Stop(t.h.t.Context()); err != nil {
		t.h.t.Fatal(err)
	}
	return took
}

// Exec returns how long a command takes in a sandbox that runs.
func (t Times) Exec(line string) time.Duration {
	t.h.t.Helper()
	began := time.Now()
	r, err := t.h.Exec(t.h.t.Context(), sandbox.Run{AgentID: agentA, Line: line})
	if err != nil || r.ExitCode != 0 {
		t.h.t.Fatalf("%s: %+v, %v", line, r, err)
	}
	return time.Since(began)
}

// Calls returns what each of n calls of the bridge takes one program of the
// guest, which makes them on one connection. No process starts between them.
func (t Times) Calls(n int) []time.Duration {
	t.h.t.Helper()
	var took []time.Duration
	for _, line := range strings.Fields(t.h.as(agentA, "probe -token-file "+tokenOf(agentA)+" -times "+strconv.Itoa(n)+logBody)) {
		us, err := strconv.Atoi(line)
		if err != nil {
			t.h.t.Fatal(err)
		}
		took = append(took, time.Duration(us)*time.Microsecond)
	}
	if len(took) != n {
		t.h.t.Fatalf("%d of %d calls", len(took), n)
	}
	return took
}
