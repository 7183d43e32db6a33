package page_test

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"go.uber.org/goleak"

	"osaurus/app/cli"
	"osaurus/bridge"
	"osaurus/engine"
)

var asProgram = flag.Bool("osaurus", false, "be the program, for the tests that need processes")

// chrome is the browser that all tests share; each has its own window and
// profile in it.
var chrome struct {
	once  sync.Once
	ctx   context.Context
	stop  func()
	cause string // why there is none
}

func TestMain(m *testing.M) {
	flag.Parse()
	if *asProgram {
		os.Exit(cli.Main(context.Background(), cli.System{Program: "osaurus", Args: flag.Args(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
			Ports: func() engine.Ports {
				p := bridge.Default()
				p.Advertiser, p.Browser = nil, nil // tests speak on loopback only
				return p
			}}))
	}
	code := m.Run()
	if chrome.stop != nil {
		chrome.stop()
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func startChrome() {
	path, err := exec.LookPath("chromium")
	if err != nil {
		chrome.cause = "no chromium: apt-get install chromium"
		return
	}
	profile, err := os.MkdirTemp("", "osr-chrome")
	if err != nil {
		chrome.cause = err.Error()
		return
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.UserDataDir(profile),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.DisableGPU)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	alloc, stopAlloc := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, stopCtx := chromedp.NewContext(alloc)
	chrome.ctx, chrome.stop = ctx, func() {
		stopCtx()
		stopAlloc()
		_ = os.RemoveAll(profile)
	}
	if err := chromedp.Do(ctx); err != nil {
		chrome.cause = "chromium does not start: " + err.Error()
	}
}

// patience bounds every test of the browser.
const patience = 2 * time.Minute

// world is a host, its settings page and a browser that looks at it.
type world struct {
	t    *testing.T
	home string
	url  string // of the host
	page string // of the settings
	host *os.Process
	ctx  context.Context
	shut func() // closes the window
}

// program runs osaurus as another process.
func program(t *testing.T, home string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"-osaurus", "--", "--home", home}, args...)...)
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "GOCOVERDIR=" + t.TempDir(), "GORACE=" + os.Getenv("GORACE")}
	return cmd
}

// background starts one that prints a JSON line first, and stops it at the end.
func background(t *testing.T, cmd *exec.Cmd) map[string]any {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	line, err := lines.ReadBytes('\n')
	said := map[string]any{}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_, _ = io.Copy(io.Discard, lines)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v: %s", cmd.Args, err, &log)
		}
	})
	if err != nil || json.Unmarshal(line, &said) != nil {
		t.Fatalf("%v said %s", cmd.Args, line)
	}
	return said
}

func tempHome(t *testing.T) string {
	t.Helper()
	// A control socket's path is short, so homes are too.
	home, err := os.MkdirTemp("", "osr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	return home
}

// empty is a home in which nothing was done yet.
func empty(t *testing.T) world {
	t.Helper()
	chrome.once.Do(startChrome)
	if chrome.cause != "" {
		t.Skip(chrome.cause)
	}
	return world{t: t, home: tempHome(t)}
}

// open starts a host, which has an identity and an agent then, and opens its
// settings in the browser.
func open(t *testing.T) world {
	t.Helper()
	w := empty(t)
	cmd := program(t, w.home, "--json", "serve", "--port", "0")
	w.url, _ = background(t, cmd)["url"].(string)
	w.host = cmd.Process
	return w.settings()
}

// settings opens the page of w's host in a window of its own.
func (w world) settings() world {
	w.t.Helper()
	said := background(w.t, program(w.t, w.home, "--json", "settings", "--no-open"))
	file, _ := said["file"].(string)
	w.page, _ = said["url"].(string)
	ctx, stop := chromedp.NewContext(chrome.ctx, chromedp.WithNewBrowserContext())
	w.t.Cleanup(stop)
	ctx, cancel := context.WithTimeout(ctx, patience)
	w.t.Cleanup(cancel)
	w.ctx, w.shut = ctx, stop
	w.run("opening the page", chromedp.EmulateViewport(1100, 900),
		chromedp.Navigate("file://"+file), chromedp.WaitVisible("main h1"))
	return w
}

func (w world) run(what string, actions ...chromedp.Action[chromedp.Void]) {
	w.t.Helper()
	err := chromedp.Do(w.ctx, actions...)
	for range 5 {
		if err == nil || !strings.Contains(err.Error(), "node with given id") {
			break
		}
		err = chromedp.Do(w.ctx, actions...) // it was drawn again between finding and touching it
	}
	if err != nil {
		w.fail(what, err)
	}
}

// fail keeps what the browser shows beside the reason.
func (w world) fail(what string, err error) {
	w.t.Helper()
	text := "nothing"
	if w.ctx.Err() == nil {
		text, _ = chromedp.Run(w.ctx, chromedp.Evaluate[string](`document.body.innerText`))
	}
	w.t.Fatalf("%s: %v; the page says:\n%s", what, err, text)
}

// look evaluates a script.
func look[T any](w world, script string) T {
	w.t.Helper()
	v, err := chromedp.Run(w.ctx, chromedp.Evaluate[T](script))
	if err != nil {
		w.fail(script, err)
	}
	return v
}

// until waits for a script to be true.
func (w world) until(what, script string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, patience/6)
	defer cancel()
	if _, err := chromedp.Run(ctx, chromedp.Poll[bool](script, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(0))); err != nil {
		w.fail("waiting until "+what, err)
	}
}

// press clicks the button whose action begins so, once it can be clicked.
func (w world) press(action string) {
	w.t.Helper()
	sel := fmt.Sprintf("[data-do^=%q]:not([disabled])", action)
	w.until(action+" is offered", fmt.Sprintf(`(() => { const b = document.querySelector(%q); for (let d = b && b.closest("details"); d; d = d.parentElement.closest("details")) d.open = true; return !!b && b.getClientRects().length > 0 })()`, sel))
	w.run("pressing "+action, chromedp.Click(sel))
}

func (w world) pane(name string) {
	w.t.Helper()
	w.run("pane "+name, chromedp.Click(fmt.Sprintf("[data-pane=%q]", name)))
	w.until(name+" shows", fmt.Sprintf(`document.querySelector('[data-pane=%q]').hasAttribute("aria-current") && !!document.querySelector("main h1")`, name))
}

func (w world) sheet(kind string) {
	w.t.Helper()
	w.until("the sheet "+kind+" shows", fmt.Sprintf(`!!document.querySelector('#sheet[open] [data-kind=%q]')`, kind))
}

func (w world) closed() {
	w.t.Helper()
	w.until("the sheet is closed", `!document.querySelector("#sheet[open]")`)
}

func (w world) says(text string) {
	w.t.Helper()
	w.until("it says "+text, fmt.Sprintf(`document.body.innerText.includes(%q)`, text))
}

// identity creates one and returns its words.
func (w world) identity() []string {
	w.t.Helper()
	w.press("identity-create")
	w.sheet("phrase")
	words := look[[]string](w, `[...document.querySelectorAll(".words li")].map((l) => l.textContent)`)
	if len(words) != 24 {
		w.t.Fatalf("%d words", len(words))
	}
	w.press("saved")
	w.closed()
	return words
}

func (w world) agent(name string) {
	w.t.Helper()
	w.pane("agents")
	w.press("agent-create")
	w.sheet("agent")
	w.run("typing the name", chromedp.SendKeys("#f-name", name))
	w.press("confirm")
	w.closed()
	w.says(name)
}

// absent fails when a word of a secret stands anywhere in the document.
func (w world) absent(what string, secrets ...string) {
	w.t.Helper()
	html := look[string](w, `document.documentElement.outerHTML + [...document.querySelectorAll("input,textarea")].map((f) => f.value).join("\n")`)
	for _, s := range secrets {
		if strings.Contains(html, s) {
			w.t.Errorf("%s: the document holds %q", what, s)
		}
	}
}
