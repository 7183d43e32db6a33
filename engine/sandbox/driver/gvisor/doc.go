// Package gvisor runs a sandbox on gVisor: a kernel of its own in user space,
// without a virtual machine and without root. The program is runsc, built from
// its pinned module and hashed before each use.
package gvisor
