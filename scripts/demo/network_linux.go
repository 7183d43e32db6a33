package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// enterNetwork runs the demo again in a network namespace that holds nothing
// but loopback and one pair of virtual interfaces, so that no multicast leaves
// this process tree. entered is false where the system allows no such thing, and err
// says why.
func enterNetwork(ctx context.Context) (entered bool, err error) {
	ip, err := exec.LookPath("ip")
	if err != nil {
		return false, err
	}
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	namespaces := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Geteuid() != 0 {
		namespaces.Cloneflags |= syscall.CLONE_NEWUSER
		namespaces.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		namespaces.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	probe := exec.CommandContext(ctx, ip, "link", "add", "near", "type", "veth", "peer", "name", "far")
	probe.SysProcAttr = namespaces
	if err := probe.Run(); err != nil {
		return false, fmt.Errorf("no network of its own: %w", err)
	}
	const build = `set -e
ip link set lo up
ip link add near type veth peer name far
ip addr add 10.77.0.1/24 dev near
ip link set near up
ip link set far up
ip route add default dev near
while ip addr show dev near | grep -q tentative; do sleep 0.1; done
exec "$0" "$1"`
	cmd := exec.CommandContext(ctx, "sh", "-c", build, self, insideFlag)
	cmd.SysProcAttr = namespaces
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return true, fmt.Errorf("the demo in its own network: %w", err)
	}
	return true, nil
}
