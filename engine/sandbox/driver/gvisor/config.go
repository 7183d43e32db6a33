//go:build linux

package gvisor

import (
	"fmt"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"osaurus/engine/sandbox"
	"osaurus/engine/sandbox/image"
)

// initCapabilities are what osaurus-guest needs to make users and to act as
// them. Agents have none: they lose them with the change of user, and nothing
// they run can gain any.
var initCapabilities = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"}

// cgroupParent holds the groups of all sandboxes.
const cgroupParent = "/osaurus"

// runBytes bounds /run, which holds users and tokens.
const runBytes = 16 << 20

const cpuPeriod = 100_000 // microseconds

// config is the OCI bundle's config.json.
func (d *Driver) config(s *Sandbox, spec sandbox.Spec, limited bool) *specs.Spec {
	c := &specs.Spec{
		Version:  "1.0.0",
		Hostname: "sandbox",
		Root:     &specs.Root{Path: "rootfs", Readonly: true},
		Process: &specs.Process{
			Args: []string{image.GuestPath, guestDir + "/" + bootName}, Env: []string{"PATH=" + image.Path}, Cwd: "/", NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{Bounding: initCapabilities, Effective: initCapabilities, Permitted: initCapabilities},
		},
		Mounts: d.mounts(s, spec),
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
		}},
	}
	if limited {
		memory, pids := int64(spec.MemoryMB)<<20, int64(spec.PIDs)
		quota, period := int64(spec.CPUs)*cpuPeriod, uint64(cpuPeriod)
		c.Linux.CgroupsPath = filepath.Join(cgroupParent, spec.ID)
		c.Linux.Resources = &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: &memory},
			Pids:   &specs.LinuxPids{Limit: &pids},
			CPU:    &specs.LinuxCPU{Quota: &quota, Period: &period},
		}
	}
	return c
}

func (d *Driver) mounts(s *Sandbox, spec sandbox.Spec) []specs.Mount {
	tmpfs := func(at, mode string, size int64) specs.Mount {
		return specs.Mount{Destination: at, Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=" + mode, fmt.Sprintf("size=%d", size)}}
	}
	memory := int64(spec.MemoryMB) << 20 // which is where they are kept
	all := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		tmpfs("/tmp", "1777", memory/4),
		tmpfs("/run", "0755", runBytes),
		{Destination: "/etc", Type: "bind", Source: s.path("etc"), Options: []string{"bind", "rw", "nosuid", "nodev"}},
		{Destination: guestDir, Type: "bind", Source: s.path("host"), Options: []string{"bind", "ro"}},
	}
	// On a shared folder an ordinary user cannot give files to anybody, and
	// runsc pretends that it worked.
	if d.rootless || spec.Workspace == "" {
		return append(all, tmpfs(image.Workspace, "0755", memory/2))
	}
	return append(all, specs.Mount{Destination: image.Workspace, Type: "bind", Source: spec.Workspace, Options: []string{"rbind", "rw", "nosuid", "nodev"}})
}
