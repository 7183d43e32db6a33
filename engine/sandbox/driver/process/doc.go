// Package process holds processes on the host that are sandboxes, and finds
// those an earlier host left.
package process
