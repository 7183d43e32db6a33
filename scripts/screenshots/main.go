// Command screenshots draws every pane of the settings page in Debian's
// chromium, light and dark, at 360 pixels and wide, into build/screenshots. It
// runs real hosts in homes of their own, so that there is something to see.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

const dest = "build/screenshots"

// patience bounds the whole run.
const patience = 5 * time.Minute

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

// stage is what there is to see.
type stage struct {
	dir   string // of homes and the program
	stops []func()
}

func (s *stage) home(name string) string { return filepath.Join(s.dir, name) }

func (s *stage) osaurus(home string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.dir, "osaurus"), append([]string{"--home", s.home(home)}, args...)...)
	cmd.Env = []string{"HOME=/home/me", "PATH=" + os.Getenv("PATH")}
	return cmd
}

func (s *stage) do(home string, args ...string) error {
	if out, err := s.osaurus(home, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("osaurus %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// start runs one in the background and returns its first line.
func (s *stage) start(home string, args ...string) (map[string]string, error) {
	cmd := s.osaurus(home, append([]string{"--json"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.stops = append(s.stops, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("osaurus %s: %w", strings.Join(args, " "), err)
	}
	said := map[string]any{}
	if err := json.Unmarshal(line, &said); err != nil {
		return nil, err
	}
	texts := map[string]string{}
	for k, v := range said {
		texts[k] = fmt.Sprint(v)
	}
	return texts, nil
}

func (s *stage) end() {
	for i := len(s.stops) - 1; i >= 0; i-- {
		s.stops[i]()
	}
	_ = os.RemoveAll(s.dir)
}

func run() error {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		return fmt.Errorf("no chromium: apt-get install chromium")
	}
	if err := os.MkdirAll(dest, 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "osr") // short, for the control sockets
	if err != nil {
		return err
	}
	s := &stage{dir: dir}
	defer s.end()
	if out, err := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "osaurus"), "./app/osaurus").CombinedOutput(); err != nil {
		return fmt.Errorf("building: %w: %s", err, out)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.UserDataDir(filepath.Join(dir, "profile")), chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("hide-scrollbars", true))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	alloc, stop := chromedp.NewExecAllocator(context.Background(), options...)
	defer stop()
	ctx, stopBrowser := chromedp.NewContext(alloc)
	defer stopBrowser()
	if err := chromedp.Do(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.setupPanes(ctx); err != nil {
		return err
	}
	return s.livePanes(ctx)
}

// setupPanes are those of a home in which nothing was done yet.
func (s *stage) setupPanes(ctx context.Context) error {
	if err := s.open(ctx, "new"); err != nil {
		return err
	}
	if err := shoot(ctx, "setup"); err != nil {
		return err
	}
	if err := click(ctx, "identity-create"); err != nil {
		return err
	}
	return shoot(ctx, "phrase")
}

// livePanes are those of a host that is in use.
func (s *stage) livePanes(ctx context.Context) error {
	said, err := s.start("host", "serve", "--port", "0")
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"identity", "acknowledge"}, {"agents", "create", "Librarian", "--description", "Knows the house's books"}, {"agents", "create", "Gardener"},
		{"keys", "create", "--agent", "Librarian", "--label", "Kitchen tablet"}, {"keys", "create", "--label", "Build machine", "--expires", "1y"},
		{"memory", "add", "Librarian", "The owner likes ferns."},
	} {
		if err := s.do("host", args...); err != nil {
			return err
		}
	}
	if err := s.open(ctx, "host"); err != nil {
		return err
	}
	for _, pane := range []string{"identity", "agents", "peers", "storage", "requests"} {
		if err := chromedp.Do(ctx, chromedp.Click(fmt.Sprintf("[data-pane=%q]", pane)), chromedp.Sleep(300*time.Millisecond)); err != nil {
			return err
		}
		if pane == "agents" {
			if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`!!(document.querySelector("#s-agents details:last-of-type").open = true)`)); err != nil {
				return err
			}
		}
		if err := shoot(ctx, pane); err != nil {
			return err
		}
	}
	if err := chromedp.Do(ctx, chromedp.Click(`[data-pane="storage"]`), chromedp.Sleep(300*time.Millisecond)); err != nil {
		return err
	}
	if err := click(ctx, "storage-rotate"); err != nil {
		return err
	}
	if err := shoot(ctx, "rotate"); err != nil {
		return err
	}
	if err := click(ctx, "cancel"); err != nil {
		return err
	}
	return s.asked(ctx, said["url"])
}

// asked is a request to pair that waits.
func (s *stage) asked(ctx context.Context, url string) error {
	out, err := s.osaurus("host", "agents", "list", "--json").Output()
	if err != nil {
		return err
	}
	var agents []struct{ ID, Name, Address string }
	if err := json.Unmarshal(out, &agents); err != nil {
		return err
	}
	target := ""
	for _, a := range agents {
		if a.Name == "Assistant" {
			target = url + "/" + a.ID + "@" + a.Address
		}
	}
	if err := s.do("guest", "identity", "create", "--json"); err != nil {
		return err
	}
	cmd := s.osaurus("guest", "pair", target)
	if err := cmd.Start(); err != nil {
		return err
	}
	s.stops = append(s.stops, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = cmd.Wait()
	})
	if err := chromedp.Do(ctx, chromedp.WaitVisible("#approval [data-approval]")); err != nil {
		return err
	}
	return shoot(ctx, "approval")
}

// open shows the settings of a home.
func (s *stage) open(ctx context.Context, home string) error {
	said, err := s.start(home, "settings", "--no-open")
	if err != nil {
		return err
	}
	return chromedp.Do(ctx, chromedp.Navigate("file://"+said["file"]), chromedp.WaitVisible("main h1"), chromedp.Sleep(2*time.Second))
}

func click(ctx context.Context, action string) error {
	return chromedp.Do(ctx, chromedp.Click(fmt.Sprintf("[data-do=%q]:not([disabled])", action)), chromedp.Sleep(700*time.Millisecond))
}

// shoot takes the four pictures of what shows.
func shoot(ctx context.Context, name string) error {
	for _, theme := range []string{"light", "dark"} {
		for _, width := range []int64{360, 1100} {
			if err := chromedp.Do(ctx, chromedp.EmulateViewport(width, 780), scheme(theme), chromedp.Sleep(200*time.Millisecond)); err != nil {
				return err
			}
			take := chromedp.FullScreenshot(100)
			if dialog, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`!!document.querySelector("dialog[open]")`)); err != nil {
				return err
			} else if dialog {
				take = chromedp.CaptureScreenshot() // what lies behind a dialog is not looked at
			}
			png, err := chromedp.Run(ctx, take)
			if err != nil {
				return err
			}
			path := filepath.Join(dest, fmt.Sprintf("%s-%s-%d.png", name, theme, width))
			if err := os.WriteFile(path, png, 0o644); err != nil {
				return err
			}
			fmt.Println(path)
		}
	}
	return nil
}

// scheme sets the colour scheme that the page is asked for.
func scheme(theme string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
		return err
	})
}
