//go:build !linux

package main

import (
	"context"
	"errors"
)

// enterNetwork has nothing to enter.
func enterNetwork(context.Context) (bool, error) {
	return false, errors.New("only Linux gives a process a network of its own")
}
