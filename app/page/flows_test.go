package page_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// output runs osaurus to its end.
func (w world) output(home string, args ...string) string {
	w.t.Helper()
	out, err := program(w.t, home, args...).Output()
	if err != nil {
		w.t.Fatalf("osaurus %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestCreateIdentityAndReadThePhraseOnce(t *testing.T) { // ID-1, ID-2, ID-3, ID-4, ID-7, ID-13
	t.Parallel()
	w := empty(t).settings()
	if got := look[string](w, `location.href`); got != w.page {
		t.Errorf("the token stays in the address: %s", got)
	}
	if _, err := os.Stat(filepath.Join(w.home, "runtime", "settings.html")); err == nil {
		t.Error("the file with the token is there after it was traded")
	}
	w.press("identity-create")
	w.sheet("phrase")
	words := look[[]string](w, `[...document.querySelectorAll(".words li")].map((l) => l.textContent)`)
	code := look[string](w, `document.querySelector(".code .mono").textContent`)
	if len(words) != 24 || !strings.HasPrefix(code, "OSAURUS-") {
		t.Fatalf("%d words, %q", len(words), code)
	}
	if cols := look[int](w, `new Set([...document.querySelectorAll(".words li")].map((l) => l.getBoundingClientRect().left)).size`); cols != 4 {
		t.Errorf("%d columns of words", cols)
	}
	w.says("cannot restore the key")
	file := filepath.Join(t.TempDir(), "phrase.txt")
	w.run("the file's name", chromedp.SetValue("#f-file", file))
	w.press("save")
	w.says("Saved to")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the saved phrase: %v, %v", info, err)
	}
	w.press("cancel") // later
	w.closed()
	w.absent("after Later", strings.Join(words, "</li><li>"), code)
	w.says("You have not confirmed that the recovery phrase is saved.")
	w.press("phrase-show")
	w.sheet("phrase")
	w.press("saved")
	w.closed()
	w.absent("after I saved it", strings.Join(words, "</li><li>"), code, "<li>"+words[0])
	w.says("The phrase is saved")
	if look[bool](w, `!!document.querySelector("[data-do=phrase-show]")`) {
		t.Error("the phrase is offered again")
	}
	look[bool](w, `(navigator.clipboard.writeText = async (text) => { window.copied = text }, true)`)
	w.run("copying the address", chromedp.Click("#s-master .copy"))
	w.until("it says so", `document.querySelector("#said").textContent === "Copied" && window.copied === document.querySelector("#s-master dd span").textContent`)
}

func TestRestore(t *testing.T) { // ID-6, ID-12, ID-16
	t.Parallel()
	w := empty(t).settings()
	words := w.identity()
	addr := look[string](w, `document.querySelector("#s-master dd span").textContent`)
	w.press("identity-reset")
	w.sheet("reset")
	w.press("confirm")
	w.says("Type RESET to confirm")
	w.run("typing the word", chromedp.SendKeys("#f-word", "RESET"))
	w.press("confirm")
	w.closed()
	w.says("There is no identity yet")
	w.press("identity-recover")
	w.sheet("recover")
	wrong := append([]string{"ozaurus"}, words[1:]...)
	w.run("a wrong word", chromedp.SendKeys("#f-phrase", strings.Join(wrong, " ")))
	w.says("24 of 24 words")
	w.press("confirm")
	w.says("Word 1 is not in the list.")
	w.run("the phrase", chromedp.SetValue("#f-phrase", strings.ToUpper(strings.Join(words, "\n"))))
	w.press("confirm")
	w.closed()
	w.says("The identity was recovered.")
	w.says(addr)
	w.absent("after the restore", strings.Join(words, " "), strings.ToUpper(strings.Join(words, " ")), words[22]+" "+words[23])
}

func TestForeignPhraseDriftAndItsExits(t *testing.T) { // ID-5, ID-6, ID-8, ID-12
	t.Parallel()
	other := empty(t).settings().identity()
	w := empty(t).settings()
	own := w.identity()
	w.agent("Rex")
	w.pane("identity")
	restoreAnyway := func(words []string) {
		w.press("identity-recover")
		w.sheet("recover")
		w.run("the phrase", chromedp.SetValue("#f-phrase", strings.Join(words, " ")))
		w.press("confirm")
		w.says("Identity of the phrase")
		w.press("anyway")
		w.closed()
	}
	restoreAnyway(other)
	w.press("drift-check")
	w.says("2 agents not of this identity.")
	w.pane("agents")
	w.says("Not of this identity")
	w.pane("identity")
	// The first exit: recover.
	w.press("identity-recover")
	w.sheet("recover")
	w.run("the own phrase", chromedp.SetValue("#f-phrase", strings.Join(own, " ")))
	w.press("confirm")
	w.closed()
	w.until("nothing drifts", `!document.querySelector("#x-drift")`)
	// The second: forward.
	restoreAnyway(other)
	w.press("drift-check")
	w.press("drift-repair")
	w.sheet("repair")
	w.says("2 agents get new addresses")
	w.press("confirm")
	w.closed()
	w.says("Repaired.")
	w.until("nothing drifts", `!document.querySelector("#x-drift")`)
	// The third: reset, from the banner.
	restoreAnyway(own)
	w.press("drift-check")
	w.until("it drifts", `!!document.querySelector("#x-drift [data-do=identity-reset]")`)
	w.run("reset", chromedp.Click("#x-drift [data-do=identity-reset]"))
	w.sheet("reset")
	w.run("typing the word", chromedp.SendKeys("#f-word", "RESET"))
	w.press("confirm")
	w.says("There is no identity yet")
}

func TestRotateAndRevoke(t *testing.T) { // ID-8, ID-9, ID-10
	t.Parallel()
	w := empty(t).settings()
	w.identity()
	w.agent("Rex")
	addr := func() string {
		return look[string](w, `(document.querySelector("#s-agents .short") || {title: ""}).title`)
	}
	w.until("the address shows", `!!document.querySelector("#s-agents .short")`)
	first := addr()
	key := w.key("agents", "laptop")
	w.press("agent-rotate")
	w.sheet("rotate")
	w.says("1 active key stops working at once.")
	w.run("Return confirms nothing", chromedp.KeyEvent(kb.Enter))
	w.press("confirm")
	w.closed()
	w.until("the address is new", fmt.Sprintf(`document.querySelector("#s-agents .short").title !== %q`, first))
	w.until("the key of the old address is revoked", `[...document.querySelectorAll("#s-keys .row")].some((r) => r.textContent.includes("laptop") && r.textContent.includes("Revoked"))`)
	w.press("agent-revoke")
	w.sheet("revoke")
	w.press("confirm")
	w.closed()
	w.says("It has no address")
	w.press("agent-assign")
	w.until("it has an address", `!!document.querySelector("#s-agents .short")`)
	w.absent("a key that was dismissed", key)
}

// key generates a key and returns it.
func (w world) key(section, label string) string {
	w.t.Helper()
	w.press("key-create:")
	w.sheet("key")
	if got := look[string](w, `document.querySelector("#sheet [name=expiration]:checked").value`); got != "90d" {
		w.t.Errorf("%s is chosen first", got)
	}
	w.run("typing the label", chromedp.SendKeys("#f-label", "  "+label+"  "))
	w.press("confirm")
	w.sheet("newkey")
	key := look[string](w, `document.querySelector("[data-secret]").textContent`)
	if !strings.HasPrefix(key, "osk-v1.") {
		w.t.Fatalf("%s: no key shows: %q", section, key[:min(len(key), 12)])
	}
	w.press("cancel")
	w.closed()
	return key
}

func TestGenerateKey(t *testing.T) { // ID-10, ID-11
	t.Parallel()
	w := open(t)
	w.pane("agents")
	w.run("the keys of all agents", chromedp.Click(`#s-keys > .actions [data-do="key-create:"]`))
	w.sheet("key")
	w.says("It works for every agent of this host.")
	w.press("confirm")
	w.says("It needs a name.")
	w.run("a long label", chromedp.SendKeys("#f-label", strings.Repeat("x", 81)))
	w.press("confirm")
	w.until("the long label is refused", `(document.querySelector("#sheet .error") || {textContent: ""}).textContent.includes("At most 80")`)
	w.run("a label", chromedp.SetValue("#f-label", " build   machine "))
	w.press("confirm")
	w.sheet("newkey")
	key := look[string](w, `document.querySelector("[data-secret]").textContent`)
	w.press("cancel")
	w.closed()
	w.absent("after it was taken", key)
	w.says("build machine")
	w.press("key-revoke")
	w.sheet("revokekey")
	w.press("confirm")
	w.closed()
	w.says("Revoked")
}

func TestTrustedIssuers(t *testing.T) { // ID-14
	t.Parallel()
	w := open(t)
	w.pane("agents")
	w.press("trust-add")
	w.sheet("trust")
	w.run("a wrong checksum", chromedp.SendKeys("#f-address", "0xF39Fd6e51aad88F6F4ce6aB8827279cffFb92266"))
	w.press("confirm")
	w.says("a character of it is wrong")
	w.run("an address", chromedp.SetValue("#f-address", "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"))
	w.press("confirm")
	w.closed()
	w.says("0xf39F")
	w.press("trust-remove")
	w.sheet("distrust")
	w.press("confirm")
	w.closed()
	w.says("Nobody else may issue keys.")
}

// pair asks for access from another process and home. What it prints is sent
// when it ends.
func (w world) pair() <-chan string {
	w.t.Helper()
	home := tempHome(w.t)
	w.output(home, "identity", "create", "--json")
	target := look[string](w, `(() => { const a = document.querySelector("#s-agents .short"); return a.closest(".row").id.slice(2) + "@" + a.title })()`)
	cmd := program(w.t, home, "pair", w.url+"/"+target)
	done := make(chan string, 1)
	go func() {
		out, err := cmd.CombinedOutput()
		done <- fmt.Sprintf("%v %s", err, out)
		w.t.Logf("pairing ended: %v %s", err, out)
	}()
	return done
}

func (w world) asked() {
	w.t.Helper()
	w.until("the request shows", `!!document.querySelector("#approval[open] [data-approval]")`)
}

// attached waits until the page is one that is asked.
func (w world) attached() {
	w.t.Helper()
	w.pane("requests")
	w.says("Asks here")
	w.pane("agents")
}

func TestApprovals(t *testing.T) { // PA-2 to PA-5, PA-8
	t.Parallel()
	w := open(t)
	w.attached()
	done := w.pair()
	w.asked()
	w.says("The key travels sealed")
	if got := look[string](w, `document.activeElement.dataset.do`); !strings.HasPrefix(got, "approval-deny:") {
		t.Errorf("the focus is on %q", got)
	}
	if got := look[string](w, `document.querySelector("#approval [name=validity]:checked").value`); got != "90d" {
		t.Errorf("%s is chosen first", got)
	}
	left := look[string](w, `document.querySelector(".countdown").textContent`)
	w.until("it counts down", fmt.Sprintf(`document.querySelector(".countdown").textContent !== %q`, left))
	// Return on Allow approves nothing.
	w.run("Return on Allow", chromedp.Focus("[data-do^=approval-allow]"), chromedp.KeyEvent(kb.Enter), chromedp.Sleep(300*time.Millisecond))
	w.asked()
	w.press("approval-allow")
	if got := <-done; !strings.HasPrefix(got, "<nil>") {
		t.Errorf("pairing: %s", got)
	}
	w.until("it is gone", `!document.querySelector("#approval[open]")`)
	w.until("the key is listed", `document.querySelector("#s-agents").textContent.includes("Paired")`)

	done = w.pair()
	w.asked()
	w.run("Esc", chromedp.Sleep(1200*time.Millisecond), chromedp.KeyEvent(kb.Escape))
	if got := <-done; strings.HasPrefix(got, "<nil>") || !strings.Contains(got, "denied") {
		t.Errorf("denied: %s", got)
	}
	w.until("it is gone", `!document.querySelector("#approval[open]")`)
}

func TestOneRequestAtATime(t *testing.T) { // PA-6
	t.Parallel()
	w := open(t)
	w.attached()
	first := w.pair()
	w.asked()
	id := `document.querySelector("#approval [data-approval]").dataset.approval`
	showed := look[string](w, id)
	if got := <-w.pair(); strings.HasPrefix(got, "<nil>") || !strings.Contains(got, "in progress") {
		t.Errorf("another one is told %s", got)
	}
	w.asked()
	if now := look[string](w, id); now != showed {
		t.Error("another request took the place of the one that shows")
	}
	w.press("approval-deny")
	if got := <-first; !strings.Contains(got, "denied") {
		t.Errorf("denied: %s", got)
	}
	w.until("it is gone", `!document.querySelector("#approval[open]")`)
}

// storageKey is the id of the key, as the host says.
func (w world) storageKey() string {
	w.t.Helper()
	var s struct{ Key struct{ ID string } }
	if err := json.Unmarshal([]byte(w.output(w.home, "storage", "status", "--json")), &s); err != nil || s.Key.ID == "" {
		w.t.Fatalf("no key: %v", err)
	}
	return s.Key.ID
}

// halt stops the host in its tracks until the function that it returns is
// called.
func (w world) halt() (resume func()) {
	w.t.Helper()
	if err := w.host.Signal(syscall.SIGSTOP); err != nil {
		w.t.Fatal(err)
	}
	resume = sync.OnceFunc(func() { _ = w.host.Signal(syscall.SIGCONT) })
	w.t.Cleanup(resume)
	return resume
}

func TestOperationSurvivesTheWindow(t *testing.T) { // ST-8
	t.Parallel()
	w := open(t)
	w.output(w.home, "memory", "add", "Osaurus", "The owner likes ferns.")
	w.pane("storage")
	w.until("the key shows", `!!document.querySelector("[data-do=storage-rotate]:not([disabled])")`)
	before := w.storageKey()
	w.press("storage-rotate")
	w.sheet("rotatekey")
	// The operation cannot end before the window is closed.
	resume := w.halt()
	w.press("confirm")
	w.until("the work shows", `!!document.querySelector("#working progress")`)
	w.until("nothing else can be done", `!document.querySelector("main [data-do]:not([data-effect]):not([disabled])") || [...document.querySelectorAll("main [data-do]:not([data-effect]):not([disabled])")].every((b) => /^(refresh|dismiss:)/.test(b.dataset.do))`)
	w.shut()
	resume()
	for end := time.Now().Add(patience); w.storageKey() == before; {
		if time.Now().After(end) {
			t.Fatal("the key is the same")
		}
	}
	again := w.settings()
	again.pane("storage")
	again.until("the new key shows, and things can be done", fmt.Sprintf(`document.querySelector("#s-status").textContent.includes(%q) && !!document.querySelector("[data-do=storage-rotate]:not([disabled])")`, w.storageKey()))
	again.says("Encrypted")
}

func TestExportAndRotate(t *testing.T) { // ST-1 to ST-9
	t.Parallel()
	w := open(t)
	w.output(w.home, "memory", "add", "Osaurus", "The owner likes ferns.")
	w.pane("storage")
	w.says("Encrypted")
	w.press("storage-rotate")
	w.sheet("rotatekey")
	w.says("You have made no backup")
	w.press("export")
	w.sheet("export")
	dest := t.TempDir()
	w.run("the folder", chromedp.SetValue("#f-dest", dest))
	// Watch for the progress before it can be over.
	look[bool](w, `(window.sawProgress = 0, new MutationObserver(() => { if (document.querySelector("progress[max]")) window.sawProgress++ }).observe(document.getElementById("working"), {childList: true, subtree: true}), true)`)
	w.press("confirm")
	w.sheet("rotatekey") // it goes on with what the export was offered for
	w.says("The backup is complete.")
	if list, err := filepath.Glob(filepath.Join(dest, "osaurus-export-*", "manifest.json")); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	before := look[string](w, `[...document.querySelectorAll("#s-status dd")].map((d) => d.textContent).join("|")`)
	w.press("confirm")
	w.says("The storage key was rotated.")
	w.closed()
	w.until("the key is another", fmt.Sprintf(`[...document.querySelectorAll("#s-status dd")].map((d) => d.textContent).join("|") !== %q`, before))
	if look[int](w, `window.sawProgress`) == 0 {
		t.Error("no progress showed")
	}
	w.press("storage-decrypt")
	w.sheet("decrypt")
	w.press("confirm")
	w.says("Encryption is off.")
	w.press("storage-encrypt")
	w.sheet("encrypt")
	w.says("Nobody else has a copy.")
	w.press("confirm")
	w.says("Encryption is on.")
	w.press("storage-maintain")
	w.says("Maintenance is done.")
	w.press("storage-verify")
	w.says("Everything verifies.")
}

func TestPeers(t *testing.T) { // ID-15
	t.Parallel()
	a := open(t)
	a.attached()
	target := look[string](a, `(() => { const a = document.querySelector("#s-agents .short"); return a.closest(".row").id.slice(2) + "@" + a.title })()`)
	b := empty(t)
	b.output(b.home, "identity", "create", "--json")
	cmd := program(t, b.home, "pair", a.url+"/"+target)
	done := make(chan error, 1)
	go func() { done <- cmd.Run() }()
	a.asked()
	a.press("approval-allow")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	b = b.settings()
	b.pane("peers")
	b.says(target[strings.Index(target, "@")+1:][:6])
	b.press("peer-forget")
	b.sheet("forget")
	b.press("confirm")
	b.closed()
	b.says("You are paired with nobody yet.")
}

func TestNarrowAndByKeyboard(t *testing.T) {
	t.Parallel()
	w := open(t)
	for _, pane := range []string{"identity", "agents", "peers", "storage", "requests"} {
		w.run("narrow", chromedp.EmulateViewport(360, 740))
		w.pane(pane)
		if over := look[int](w, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
			t.Errorf("%s is %d px wider than a 360 px window", pane, over)
		}
		// Also after the window became narrow while the pane showed.
		w.run("wide and narrow again", chromedp.EmulateViewport(1100, 740), chromedp.EmulateViewport(360, 740))
		w.until("the chosen tab is in sight", `(() => { const r = document.querySelector("nav [aria-current]").getBoundingClientRect(); return innerWidth === 360 && r.left >= 0 && r.right <= innerWidth })()`)
		bare := look[[]string](w, `[...document.querySelectorAll("button,input,textarea,select")].filter((e) => !(e.textContent.trim() || e.getAttribute("aria-label") || (e.labels && e.labels.length))).map((e) => e.outerHTML)`)
		if len(bare) > 0 {
			t.Errorf("%s has controls without a label: %v", pane, bare)
		}
	}
	w.pane("agents")
	w.run("opening a sheet by keyboard", chromedp.Focus(`[data-do="agent-create"]`), chromedp.KeyEvent(" "))
	w.sheet("agent")
	w.run("typing, then Return", chromedp.KeyEvent("Terry"), chromedp.KeyEvent(kb.Enter))
	w.closed()
	w.says("Terry")
	w.run("opening it again", chromedp.Focus(`[data-do="agent-create"]`), chromedp.KeyEvent(" "))
	w.sheet("agent")
	w.run("Esc", chromedp.KeyEvent(kb.Escape))
	w.closed()
}
