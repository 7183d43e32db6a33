package page_test

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
)

// line carries connections to a relay and can be held up: what is sent then
// arrives when it is let go.
type line struct {
	domain string // of the relay, whose port is the line's

	mu   sync.Mutex
	held chan struct{} // closed when it is let go; nil while nothing is held
}

func (l *line) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = make(chan struct{})
}

func (l *line) let() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held != nil {
		close(l.held)
		l.held = nil
	}
}

func (l *line) carry(from net.Conn, to string) {
	defer from.Close()
	l.mu.Lock()
	held := l.held
	l.mu.Unlock()
	if held != nil {
		<-held
	}
	out, err := net.Dial("tcp", to)
	if err != nil {
		return // the relay ended
	}
	defer out.Close()
	go func() {
		_, _ = io.Copy(out, from) // either end may be cut
		_ = out.Close()
	}()
	_, _ = io.Copy(from, out)
}

// relay starts one in another process, behind a line.
func relay(t *testing.T) *line {
	t.Helper()
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	l := &line{domain: "localhost:" + port}
	var carrying sync.WaitGroup
	t.Cleanup(carrying.Wait) // once the relay ended
	at, _ := background(t, program(t, tempHome(t), "--json", "relay", "serve", "--listen", "127.0.0.1:0", "--domain", l.domain))["listen"].(string)
	carrying.Go(func() {
		for {
			c, err := front.Accept()
			if err != nil {
				return // it was closed below
			}
			carrying.Go(func() { l.carry(c, at) })
		}
	})
	t.Cleanup(func() {
		l.let()
		_ = front.Close()
	})
	return l
}

// reached has the agent Assistant of w reached through the relay.
func (w world) reached(l *line) {
	w.t.Helper()
	w.output(w.home, "settings", "set", "relay_domain="+l.domain)
	for range 20 {
		if strings.Contains(w.output(w.home, "relay", "enable", "Assistant", "--json"), `"connected"`) {
			return
		}
	}
	w.t.Fatal("the relay does not take the agent")
}

// invite makes one on the page and returns its link, which still shows.
func (w world) invite() string {
	w.t.Helper()
	w.pane("peers")
	w.press("invite-create")
	w.sheet("invite")
	w.press("confirm")
	w.sheet("link")
	link := look[string](w, `document.querySelector("#sheet [data-secret]").textContent`)
	if !strings.HasPrefix(link, "osaurus://") {
		w.t.Fatalf("no link shows: %.20q", link)
	}
	return link
}

func TestInvites(t *testing.T) { // ID-15
	t.Parallel()
	l := relay(t)
	w := open(t)
	w.reached(l)
	link := w.invite()
	picture, err := chromedp.Run(w.ctx, chromedp.Screenshot("#sheet svg"))
	if err != nil {
		w.fail("the QR code", err)
	}
	file := filepath.Join(t.TempDir(), "qr.png")
	if err := os.WriteFile(file, picture, 0o600); err != nil {
		t.Fatal(err)
	}
	if zbar, err := exec.LookPath("zbarimg"); err != nil {
		t.Log("nothing reads the QR code: apt-get install zbar-tools")
	} else if out, err := exec.Command(zbar, "--quiet", "--raw", file).Output(); err != nil || strings.TrimSpace(string(out)) != link {
		t.Errorf("the QR code reads %q, %v", out, err)
	}
	w.press("cancel")
	w.closed()
	w.absent("after the link was dismissed", link)
	w.until("the invite is listed", `document.querySelector("#s-invites .row .badge").textContent === "Active"`)
	w.press("invite-show")
	w.sheet("link")
	if again := look[string](w, `document.querySelector("#sheet [data-secret]").textContent`); again != link {
		t.Error("it shows another link")
	}
	w.press("cancel")
	w.closed()
	w.press("invite-revoke")
	w.sheet("revokeinvite")
	w.press("confirm")
	w.closed()
	w.until("it is revoked", `document.querySelector("#s-invites .row .badge").textContent === "Revoked"`)
	// Nobody gets in by it.
	other := tempHome(t)
	w.output(other, "identity", "create", "--json")
	w.output(other, "settings", "set", "relay_domain="+l.domain)
	if out, err := program(t, other, "pair", link, "--yes").CombinedOutput(); err == nil || !strings.Contains(string(out), "revoked") {
		t.Errorf("a revoked invite: %v %s", err, out)
	}
}

func TestRelayIsSwitchedOnThePage(t *testing.T) { // MB-4, on the panes
	t.Parallel()
	l := relay(t)
	w := open(t)
	w.output(w.home, "settings", "set", "relay_domain="+l.domain)
	badge := `(document.querySelector("#s-relay .row .badge") || {textContent: ""}).textContent`
	w.pane("peers")
	w.until("it is off", badge+` === "Off"`)
	w.press("relay-on")
	w.sheet("relay")
	w.says("reach this agent from the internet")
	w.press("cancel")
	w.closed()
	w.until("it is off still", badge+` === "Off"`)
	w.press("relay-on")
	w.sheet("relay")
	w.press("confirm")
	w.closed()
	w.until("it is reached", badge+` === "Connected"`)
	w.says(l.domain)
	w.press("relay-off")
	w.until("it is off again", badge+` === "Off"`)
	if said := w.output(w.home, "relay", "status", "--json"); strings.Contains(said, "Assistant") {
		t.Errorf("the host says %s", said)
	}
}

// tampered changes one character in the middle of a link.
func tampered(link string) string {
	i, other := len(link)/2, "A"
	if link[i] == 'A' {
		other = "B"
	}
	return link[:i] + other + link[i+1:]
}

func TestLinkThroughTheRelay(t *testing.T) { // LNK-1, ST-8
	t.Parallel()
	l := relay(t)
	a := open(t)
	a.reached(l)
	link := a.invite()
	b := empty(t)
	b.output(b.home, "identity", "create", "--json")
	b.output(b.home, "settings", "set", "relay_domain="+l.domain)
	b = b.settings()
	b.pane("peers")
	b.press("link-open")
	b.sheet("openlink")
	b.run("a tampered link", chromedp.SetValue("#f-link", tampered(link)))
	b.press("confirm")
	b.until("it is refused", `!!document.querySelector('#sheet [data-kind="openlink"] .error')`)
	b.run("the link", chromedp.SetValue("#f-link", link))
	b.press("confirm")
	b.sheet("accept")
	b.says("Only the address is proven.")
	b.says("Assistant")
	b.says(l.domain)
	// While it is on its way, nothing else can be done.
	l.hold()
	b.press("confirm")
	b.until("the work shows", `!!document.querySelector("#working progress") && document.querySelector("#sheet .hint") !== null`)
	for _, pane := range []string{"identity", "agents", "peers", "storage"} {
		// The sheet is in front, so nothing behind it can be clicked either.
		look[bool](b, `(document.querySelector('[data-pane="`+pane+`"]').click(), true)`)
		b.until(pane+" shows", `document.querySelector('[data-pane="`+pane+`"]').hasAttribute("aria-current") && !!document.querySelector("main [data-do]:not([data-effect])")`)
		if on := look[[]string](b, `[...document.querySelectorAll("main [data-do]:not([data-effect]):not([disabled]), #sheet [data-do]:not([data-effect]):not([disabled])")].map((e) => e.dataset.do)`); len(on) > 0 {
			t.Errorf("%s offers %v beside the work", pane, on)
		}
	}
	l.let()
	b.closed()
	b.pane("peers")
	b.says("Paired.")
	b.until("the peer is listed", `document.querySelector("#s-peers .row").textContent.includes("Assistant") && !document.querySelector("#working progress")`)
	b.until("things can be done again", `!!document.querySelector("main [data-do=link-open]:not([disabled])")`)
	b.absent("after it was accepted", link)
	a.press("cancel")
	a.until("the invite was used", `document.querySelector("#s-invites .row .badge").textContent === "Used"`)
}

func TestCorruptStore(t *testing.T) { // ST-3
	t.Parallel()
	w := empty(t)
	w.output(w.home, "identity", "create", "--json")
	w.output(w.home, "memory", "add", "Osaurus", "The owner likes ferns.")
	var file string
	err := filepath.WalkDir(w.home, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.Contains(path, "memory") && strings.HasSuffix(path, ".sqlite") {
			file = path
		}
		return err
	})
	if err != nil || file == "" {
		t.Fatalf("no store of memories: %v", err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	broken := append([]byte(nil), whole...)
	for i := 64; i < 128; i++ {
		broken[i] ^= 0xff
	}
	if err := os.WriteFile(file, broken, 0o600); err != nil {
		t.Fatal(err)
	}
	w = w.settings()
	w.pane("storage")
	badge := `(document.querySelector("#r-memory .badge") || {textContent: ""}).textContent`
	w.press("storage-verify")
	w.until("the badge shows", badge+` === "CORRUPT"`)
	w.press("store-retry:memory")
	w.says("This failed: Trying again")
	w.until("it is as it was", badge+` === "CORRUPT"`)
	// Somebody put the whole file back.
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	w.press("store-retry:memory")
	w.until("the badge is gone", badge+` === ""`)
	// Broken again, and given up.
	if err := os.WriteFile(file, broken, 0o600); err != nil {
		t.Fatal(err)
	}
	w.press("storage-verify")
	w.until("the badge shows", badge+` === "CORRUPT"`)
	w.press("store-reset:memory")
	w.sheet("resetstore")
	w.says("never deleted")
	w.press("confirm")
	w.closed()
	w.until("the badge is gone", badge+` === ""`)
	w.until("it was set aside", `!!document.querySelector("#s-aside .row")`)
	aside, err := filepath.Glob(filepath.Join(w.home, "quarantine", "*", "*"))
	if err != nil || len(aside) == 0 {
		t.Errorf("nothing was set aside: %v", err)
	}
}
