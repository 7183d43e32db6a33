//go:build !darwin || !cgo

package vz

import (
	"context"
	"fmt"

	"osaurus/engine/sandbox"
)

// driver is the one of a system without the framework.
type driver struct{}

// New returns a driver that is unavailable.
func New(Options) sandbox.Driver { return driver{} }

var errElsewhere = fmt.Errorf("%w: vz: it needs macOS and a program built with cgo", sandbox.ErrUnavailable)

func (driver) Name() string                    { return "vz" }
func (driver) Available(context.Context) error { return errElsewhere }
func (driver) Provision(context.Context) error { return errElsewhere }
func (driver) Sweep(context.Context) error     { return nil }
func (driver) Start(context.Context, sandbox.Spec) (sandbox.Sandbox, error) {
	return nil, errElsewhere
}
