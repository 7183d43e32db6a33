package image

import (
	"io/fs"
	"strings"
)

// Parts are the programs the sandbox's image consists of, all static.
type Parts struct {
	Busybox []byte
	Applets []string // names busybox answers to
	Guest   []byte   // osaurus-guest: the first process
	Host    []byte   // osaurus-host: what agents call
}

// Where the guest programs stand in the image.
const (
	GuestPath = "/sbin/osaurus-guest"
	HostPath  = "/usr/local/bin/osaurus-host"
	// Workspace holds the agents' homes.
	Workspace = "/workspace"
	// Path is where programs are looked for.
	Path = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
)

// folders of the image. The ones a driver mounts over are there to be mounted
// over.
var folders = []Entry{
	{Name: "bin"}, {Name: "dev"}, {Name: "etc"}, {Name: "proc"}, {Name: "root", Mode: 0o700}, {Name: "run"},
	{Name: "sbin"}, {Name: "sys"}, {Name: "tmp", Mode: fs.ModeSticky | 0o777}, {Name: "usr"}, {Name: "usr/bin"},
	{Name: "usr/local"}, {Name: "usr/local/bin"}, {Name: "usr/sbin"}, {Name: "var"}, {Name: "workspace"},
}

// Rootfs lays the parts out.
func Rootfs(p Parts) []Entry {
	var all []Entry
	for _, f := range folders {
		if f.Mode == 0 {
			f.Mode = 0o755
		}
		f.Mode |= fs.ModeDir
		all = append(all, f)
	}
	all = append(all,
		Entry{Name: "bin/busybox", Mode: 0o755, Body: p.Busybox},
		// /etc is the one part of the root that drivers make writable, because
		// osaurus-guest keeps the users there.
		Entry{Name: "etc/passwd", Mode: 0o644, Body: []byte("root:x:0:0:root:/root:/bin/sh\n")},
		Entry{Name: "etc/group", Mode: 0o644, Body: []byte("root:x:0:\n")},
		Entry{Name: "etc/hosts", Mode: 0o644, Body: []byte("127.0.0.1 localhost\n::1 localhost\n")},
		Entry{Name: "etc/profile", Mode: 0o644, Body: []byte("export PATH=" + Path + "\numask 077\n")},
	)
	all = append(all, Programs(p.Guest, p.Host)...)
	for _, applet := range p.Applets {
		if applet != "busybox" {
			all = append(all, Entry{Name: "bin/" + applet, Mode: fs.ModeSymlink, Target: "busybox"})
		}
	}
	return all
}

// Programs are the guest programs alone, for an image of others that is
// booted with them added.
func Programs(guest, host []byte) []Entry {
	return []Entry{
		{Name: strings.TrimPrefix(GuestPath, "/"), Mode: 0o555, Body: guest},
		{Name: strings.TrimPrefix(HostPath, "/"), Mode: 0o555, Body: host},
	}
}
