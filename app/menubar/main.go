//go:build darwin && cgo

// Command menubar is the app in the menu bar: a host in this process, and the
// panes in front of it. Called with arguments it is the command line.
package main

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	mac "github.com/progrium/darwinkit/macos/appkit"
	"github.com/progrium/darwinkit/macos/foundation"

	"osaurus/app/appkit"
	"osaurus/app/cli"
	"osaurus/app/page"
	"osaurus/app/panes"
	"osaurus/bridge"
	"osaurus/bridge/notify"
	"osaurus/engine"
	"osaurus/engine/control"
	"osaurus/engine/secret"
)

// AppKit belongs to the main thread, and this goroutine to it from here on.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) > 1 {
		os.Exit(cli.Main(context.Background(), cli.System{
			Program: cli.ProgramName(os.Args[0]), Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Ports: bridge.Default,
		}))
	}
	base, err := os.UserHomeDir()
	if err != nil {
		os.Exit(1) // nobody to tell: there is no terminal
	}
	a := newApplication(filepath.Join(base, ".osaurus"))
	app := mac.Application_SharedApplication()
	app.SetDelegate(a.delegate(app)) // which retains it
	app.Run()
}

// application lives as long as the process.
type application struct {
	ctx    context.Context
	cancel context.CancelFunc
	model  *panes.Model
	host   *host
	shown  *appkit.App // nil until the app was launched
	links  []string    // that came before
	leave  sync.Once
}

func newApplication(home string) *application {
	a := &application{}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.host = &host{home: home, tell: func(s panes.ServingState) { a.model.SetServing(s) },
		ask: func(ctx context.Context, again bool) (secret.Bytes, bool) { return a.shown.AskPassphrase(ctx, again) }}
	client := control.NewClient(filepath.Join(home, filepath.FromSlash(engine.SocketPath)))
	a.model = panes.New(client, panes.Env{Home: filepath.Dir(home), Clipboard: appkit.Pasteboard{}, Notify: a.notify, Serving: a.host,
		DiskEncrypted: func(context.Context) panes.DiskState { return page.DiskOf(home) }})
	return a
}

// delegate is told of what happens to the app. It is whole before the app runs:
// the link that started the app comes before it is launched.
func (a *application) delegate(app mac.Application) *mac.ApplicationDelegate {
	d := &mac.ApplicationDelegate{}
	d.SetApplicationDidFinishLaunching(func(foundation.Notification) { a.launch(app) })
	d.SetApplicationShouldTerminateAfterLastWindowClosed(func(mac.Application) bool { return false })
	d.SetApplicationOpenURLs(func(_ mac.Application, urls []foundation.URL) {
		for _, u := range urls {
			a.open(u.AbsoluteString())
		}
	})
	d.SetApplicationShouldTerminate(func(mac.Application) mac.ApplicationTerminateReply {
		if a.model.Busy() {
			a.shown.ShowPane(panes.Storage)
			return mac.TerminateCancel
		}
		// What ends may need the main thread, so nothing waits on it.
		a.leave.Do(func() { go a.end() })
		return mac.TerminateLater
	})
	return d
}

// end ends everything, and then the app.
func (a *application) end() {
	a.host.Stop()
	a.cancel()
	a.host.wait()
	a.model.Close()
	a.shown.Leave()
}

func (a *application) open(link string) {
	if a.shown == nil {
		a.links = append(a.links, link)
		return
	}
	a.shown.OpenLink(link)
}

// launch is called on the main thread once the app is up.
func (a *application) launch(app mac.Application) {
	images := foundation.Bundle_MainBundle().ResourcePath()
	a.shown = appkit.Start(a.ctx, app, appkit.Config{Model: a.model, Images: images})
	for _, link := range a.links {
		a.shown.OpenLink(link)
	}
	a.links = nil
	// Outside a bundle there are no notifications; the panel shows all the same.
	_ = notify.Start("Review", "Deny", a.chosen)
	go a.model.Watch(a.ctx)
	a.host.Start()
}

// notify shows a notice of the model. Its id says what a click opens and what
// Deny denies.
func (a *application) notify(n panes.Notice) {
	_ = notify.Show(string(n.Pane)+" "+n.Prompt, n.Title, n.Text, n.Prompt != "") // as at Start
}

func (a *application) chosen(id, action string) {
	pane, prompt, _ := strings.Cut(id, " ")
	if action == notify.Deny && prompt != "" {
		_ = a.model.Do(panes.Input{Action: "approval-deny:" + prompt, Via: panes.Click}) // one that ended is not offered
		return
	}
	a.shown.ShowPane(panes.Pane(pane))
}
