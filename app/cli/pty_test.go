package cli_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
)

// terminal is a program at a terminal of its own.
type terminal struct {
	t    *testing.T
	file *os.File

	mu    sync.Mutex
	seen  bytes.Buffer
	heard chan struct{} // holds one token whenever something new was seen
	cmd   *exec.Cmd
}

// shortHome is a home whose socket path is not too long.
func shortHome(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "osr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// binary is this test under the name by which it is the program.
func binary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "osaurus")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func plain(t *testing.T, bin, home string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), bin, append([]string{"--home", home}, args...)...)
	cmd.Env = []string{"HOME=" + home, "TERM=xterm", "GORACE=" + os.Getenv("GORACE")}
	return cmd
}

func atTerminal(t *testing.T, bin, home string, args ...string) *terminal {
	t.Helper()
	cmd := plain(t, bin, home, args...)
	file, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 40, Cols: 100})
	if err != nil {
		t.Fatal(err)
	}
	x := &terminal{t: t, file: file, cmd: cmd, heard: make(chan struct{}, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(x, file) // ends with the program
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // it may be gone already
		_ = cmd.Wait()
		_ = file.Close()
		<-done
	})
	return x
}

func (x *terminal) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	select {
	case x.heard <- struct{}{}:
	default:
	}
	return x.seen.Write(p)
}

func (x *terminal) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.seen.String()
}

// until waits for a text to show.
func (x *terminal) until(want string) {
	x.t.Helper()
	deadline := time.After(patience)
	for !strings.Contains(x.text(), want) {
		select {
		case <-x.heard:
		case <-deadline:
			x.t.Fatalf("%q does not show in\n%s", want, x.text())
		}
	}
}

func (x *terminal) typeLine(line string) {
	x.t.Helper()
	if _, err := io.WriteString(x.file, line+"\n"); err != nil {
		x.t.Fatal(err)
	}
}

var target = regexp.MustCompile(`pair (http://\S+)`)

// TestServeAtATerminal: the phrase shows once, a request to pair is asked and
// answered with a word, and the other side gets what it was given.
func TestServeAtATerminal(t *testing.T) {
	t.Parallel()
	bin, alice, bob := binary(t), shortHome(t), shortHome(t)
	x := atTerminal(t, bin, alice, "serve", "--port", "0")
	x.until("Your recovery phrase")
	x.until("24. ")
	x.until("approvals watch")
	url := target.FindStringSubmatch(x.text())
	if url == nil {
		t.Fatalf("no command to pair in\n%s", x.text())
	}
	if out, err := plain(t, bin, bob, "identity", "create", "--quiet").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	pair := plain(t, bin, bob, "pair", url[1], "--name", "helper")
	var out bytes.Buffer
	pair.Stdout, pair.Stderr = &out, &out
	if err := pair.Start(); err != nil {
		t.Fatal(err)
	}
	x.until("Somebody asks")
	x.until("left, else denied")
	x.typeLine("")      // Return alone approves nothing
	x.typeLine("maybe") // nor does another word
	x.until("Type one of the words")
	deadline := time.After(patience)
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(x.text(), "Answered: ") { // keys sleep for a moment after the question
		select {
		case <-tick.C:
			x.typeLine("session")
		case <-deadline:
			t.Fatalf("no answer in\n%s", x.text())
		}
	}
	if err := pair.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	answer, err := plain(t, bin, bob, "run", "helper", "through the channel", "--model", "echo").Output()
	if err != nil || strings.TrimSpace(string(answer)) != "through the channel" {
		t.Errorf("%q, %v", answer, err)
	}
	x.typeLine("\x03")
	x.until("Stopped.")
	if all := x.text(); strings.Contains(all, "error:") || strings.Contains(all, "The request ended") {
		t.Errorf("an answered request is told as another thing:\n%s", all)
	}
}

// TestSecretsAreNotEchoed: neither while typed nor afterwards.
func TestSecretsAreNotEchoed(t *testing.T) {
	t.Parallel()
	const passphrase = "correct horse battery staple"
	bin, home := binary(t), shortHome(t)
	if out, err := plain(t, bin, home, "identity", "create", "--quiet").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	x := atTerminal(t, bin, home, "identity", "passphrase", "set")
	x.until("New passphrase: ")
	x.typeLine(passphrase)
	x.until("Again: ")
	x.typeLine(passphrase)
	if err := x.cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, x.text())
	}
	y := atTerminal(t, bin, home, "identity", "show")
	y.until("Passphrase of the keystore: ")
	y.typeLine(passphrase)
	y.until("ready")
	if all := x.text() + y.text(); strings.Contains(all, "horse") {
		t.Errorf("the passphrase shows in\n%s", all)
	}
}

// TestColour: only at a terminal, and not when it is unwanted.
func TestColour(t *testing.T) {
	t.Parallel()
	bin, home := binary(t), shortHome(t)
	x := atTerminal(t, bin, home, "doctor")
	x.until("provider probe")
	if !strings.Contains(x.text(), "\x1b[") {
		t.Errorf("no colour at a terminal:\n%q", x.text())
	}
	y := atTerminal(t, bin, home, "doctor", "--no-color")
	y.until("provider probe")
	out, err := plain(t, bin, home, "doctor").CombinedOutput()
	if strings.Contains(y.text()+string(out), "\x1b[") {
		t.Errorf("colour where none is wanted: %q, %v", y.text(), err)
	}
}
