//go:build linux

package gvisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"osaurus/engine/sandbox/driver/process"
)

// remove deletes all that is left of an ended sandbox: its state, its control
// groups, its bundle. It does itself what "runsc delete" does, which takes a
// second and would run a program that may differ from its pin.
func (d *Driver) remove(ctx context.Context, id string) error {
	if err := d.killLeft(ctx, id); err != nil {
		return fmt.Errorf("gvisor: %w", err)
	}
	return errors.Join(removeCgroups(ctx, id), removeState(d.runs(), id), os.RemoveAll(filepath.Join(d.bundles(), id)))
}

// Sweep implements sandbox.Driver. It needs no runsc: processes are found by
// the state folder on their command line.
func (d *Driver) Sweep(ctx context.Context) error {
	if err := d.killLeft(ctx, ""); err != nil {
		return fmt.Errorf("gvisor: %w", err)
	}
	ids, err := left(d.bundles(), d.runs())
	if err != nil {
		return fmt.Errorf("gvisor: %w", err)
	}
	for _, id := range ids {
		err = errors.Join(err, d.remove(ctx, id))
	}
	return err
}

// killLeft kills every process that runsc started for this state folder, for
// one sandbox or, with id "", for all, and waits until they have ended.
func (d *Driver) killLeft(ctx context.Context, id string) error {
	bundle := "--bundle=" + filepath.Join(d.bundles(), id)
	return process.KillAll(ctx, func(args []string) bool {
		return slices.Contains(args, "--root="+d.runs()) && (id == "" || slices.Contains(args, id) || slices.Contains(args, bundle))
	})
}

// left lists the sandboxes that folders tell of.
func left(bundles, state string) ([]string, error) {
	found := map[string]bool{}
	for _, dir := range []string{bundles, state} {
		names, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, n := range names {
			// runsc keeps "<id>_sandbox:<id>.state" and ".lock" of each, and
			// leaves the socket that it was commanded by.
			id, _, _ := strings.Cut(n.Name(), "_sandbox:")
			if socket, ok := strings.CutPrefix(id, "runsc-"); ok {
				id = strings.TrimSuffix(socket, ".sock")
			}
			if validID(id) {
				found[id] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// removeState deletes what runsc keeps of one sandbox.
func removeState(state, id string) error {
	names, err := os.ReadDir(state)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, n := range names {
		if strings.HasPrefix(n.Name(), id+"_sandbox:") || n.Name() == "runsc-"+id+".sock" {
			err = errors.Join(err, os.RemoveAll(filepath.Join(state, n.Name())))
		}
	}
	return err
}
