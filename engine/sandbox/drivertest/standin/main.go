//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/hashicorp/yamux"
	"golang.org/x/sys/unix"

	"osaurus/engine/sandbox/wire"
)

// request is one line from the test, answer the line that answers it.
type request struct {
	ID   int      `json:"id"`
	UID  uint32   `json:"uid"`
	Argv []string `json:"argv"`
}

type answer struct {
	ID     int    `json:"id"`
	Output string `json:"output"`
	Exit   int    `json:"exit"`
}

const bridgeSocket = "/tmp/osaurus-bridge.sock"

func main() {
	log.SetFlags(0)
	if filepath.Base(os.Args[0]) == "osaurus-host" {
		if os.Args[1] == "euid" {
			fmt.Println(os.Geteuid())
			return
		}
		call(os.Args[1], strings.Join(os.Args[2:], " "))
		return
	}
	raw, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	boot, err := wire.ParseBoot(raw)
	if err != nil {
		log.Fatal(err)
	}
	if boot.Init {
		mounts()
	}
	dial, err := transport(boot)
	if err != nil {
		log.Fatal(err)
	}
	control, err := dial()
	if err != nil {
		log.Fatal(err)
	}
	if err := relay(boot.Sandbox, dial); err != nil {
		log.Fatal(err)
	}
	fmt.Fprintf(control, "OSC1 %s\n", boot.Nonce)
	serve(control) // returns when the host is gone, and the sandbox ends
	if boot.Init {
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
}

// call sends one line to a Unix socket and prints what comes back.
func call(socket, text string) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprintln(c, text)
	_, _ = io.Copy(os.Stdout, c)
}

// mounts does what gVisor does by itself.
func mounts() {
	for _, m := range []struct{ kind, at, options string }{
		{"proc", "/proc", "hidepid=2"}, {"sysfs", "/sys", ""}, {"devtmpfs", "/dev", "mode=755"},
		{"tmpfs", "/run", "mode=755"}, {"tmpfs", "/tmp", "mode=1777,size=67108864"},
	} {
		if err := unix.Mount(m.kind, m.at, m.kind, unix.MS_NOSUID, m.options); err != nil && !errors.Is(err, unix.EBUSY) {
			log.Print(m.at, ": ", err)
		}
	}
}

// transport reaches the host as the boot file says.
func transport(boot wire.Boot) (func() (net.Conn, error), error) {
	kind, where, _ := strings.Cut(boot.Transport, ":")
	if kind == "unix" {
		return func() (net.Conn, error) { return net.Dial("unix", where) }, nil
	}
	port, err := os.OpenFile(where, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	session, err := yamux.Client(port, nil)
	if err != nil {
		return nil, err
	}
	return session.Open, nil
}

func relay(id string, dial func() (net.Conn, error)) error {
	_ = os.Remove(bridgeSocket)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: bridgeSocket, Net: "unix"})
	if err != nil {
		return err
	}
	if err := os.Chmod(bridgeSocket, 0o666); err != nil { //nolint:gosec // every agent may call
		return err
	}
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go carry(c, id, dial)
		}
	}()
	return nil
}

func carry(c *net.UnixConn, id string, dial func() (net.Conn, error)) {
	defer c.Close()
	uid, err := peer(c)
	if err != nil {
		return
	}
	host, err := dial()
	if err != nil {
		return
	}
	defer host.Close()
	fmt.Fprintf(host, "OSG1 %s %d 1\n", id, uid)
	go func() { _, _ = io.Copy(host, c) }()
	_, _ = io.Copy(c, host)
}

func peer(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var got error
	err = raw.Control(func(fd uintptr) { cred, got = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, got); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

func serve(control net.Conn) {
	lines := bufio.NewReaderSize(control, 1<<20)
	var mu sync.Mutex
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var r request
		if json.Unmarshal(line, &r) != nil {
			return
		}
		go func() {
			raw, _ := json.Marshal(run(r))
			mu.Lock()
			defer mu.Unlock()
			_, _ = control.Write(append(raw, '\n'))
		}()
	}
}

func run(r request) answer {
	cmd := exec.Command(r.Argv[0], r.Argv[1:]...) //nolint:gosec // the test says what
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: r.UID, Gid: r.UID}}
	out, err := cmd.CombinedOutput()
	a := answer{ID: r.ID, Output: string(out[:min(len(out), 256<<10)])}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		a.Exit = exit.ExitCode()
	} else if err != nil {
		a.Exit, a.Output = 127, err.Error()
	}
	return a
}
