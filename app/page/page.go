// Package page is the local settings page: the panes as HTML, for every system
// and without a window of our own. It serves one browser of the owner, on
// 127.0.0.1 and a free port, until nobody has used it for ten minutes.
//
// Whoever is on this machine can reach the port, and a browser sends cookies
// to every port of a host, so there is no cookie (decisions C18). The browser
// is handed a file that only the owner can read. It leads to the page with a
// token in the fragment, which no request carries; the script trades it, once,
// for a secret that it keeps in memory and sends as a header.
package page

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"osaurus/app/panes"
	"osaurus/engine/atomicfile"
	"osaurus/resources"
)

// Limits of the page.
const (
	IdleEnd     = 10 * time.Minute // without anything chosen
	pollFor     = 20 * time.Second // how long a request for changes waits
	awayAfter   = 30 * time.Second // without a poll the browser counts as gone
	maxBody     = 64 << 10         // bytes of a request
	headerLimit = 8 << 10          // bytes of its head
	lookEvery   = time.Second
	secretBytes = 32
)

// redirectFile is what the browser opens, below the directory that is given.
const redirectFile = "settings.html"

// Headers that only a script of the page itself can send.
const (
	sessionHeader = "X-Osaurus-Session"
	pageHeader    = "X-Osaurus-Page"
)

// Page is one run of the settings page.
type Page struct {
	model    *panes.Model
	listener net.Listener
	host     string // 127.0.0.1:port
	file     string
	shell    []byte
	views    *template.Template
	now      func() time.Time

	mu      sync.Mutex
	token   string // "" once it was traded
	session string // "" until then
	used    time.Time
	polled  time.Time
	polls   int
}

// Open listens and writes the file that leads to the page into dir. The caller
// keeps the model and closes it after Serve.
func Open(ctx context.Context, m *panes.Model, dir string) (*Page, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Page{model: m, listener: l, host: l.Addr().String(), file: filepath.Join(dir, redirectFile), now: time.Now, token: newSecret()}
	p.used = p.now()
	if err := errors.Join(p.prepare(), p.writeFile(dir)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return p, nil
}

func newSecret() string {
	b := make([]byte, secretBytes)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

func (p *Page) prepare() (err error) {
	if p.views, err = templates(p.model.Text); err != nil {
		return err
	}
	var b bytes.Buffer
	err = p.views.ExecuteTemplate(&b, "shell.html", struct{ Language string }{"en"})
	p.shell = b.Bytes()
	return err
}

func (p *Page) writeFile(dir string) error {
	if err := atomicfile.MkdirAll(dir); err != nil {
		return err
	}
	return atomicfile.Write(p.file, fmt.Appendf(nil, "<!doctype html>\n<meta charset=\"utf-8\">\n<meta name=\"referrer\" content=\"no-referrer\">\n<meta http-equiv=\"refresh\" content=\"0; url=%s/#%s\">\n<title>Osaurus</title>\n", p.origin(), p.token))
}

func (p *Page) origin() string { return "http://" + p.host }

// File is what to open in a browser. It serves once.
func (p *Page) File() string { return p.file }

// URL is where the page is; it shows nothing without the token in File.
func (p *Page) URL() string { return p.origin() + "/" }

// Serve answers until ctx ends or nobody has used the page for IdleEnd. An
// operation that runs is waited for.
func (p *Page) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{Handler: p.handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, MaxHeaderBytes: headerLimit, BaseContext: func(net.Listener) context.Context { return ctx }}
	var beside sync.WaitGroup
	beside.Go(func() {
		defer cancel()
		p.attend(ctx)
	})
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	err := srv.Serve(p.listener)
	cancel()
	beside.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	if gone := os.Remove(p.file); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

// attend ends when the page was idle for too long. While a browser is there,
// the model is kept fresh and requests to pair are asked; when it went away
// without a word, what was shown to it is dismissed.
func (p *Page) attend(ctx context.Context) {
	stop := func() {}
	defer func() { stop() }()
	present := false
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		here, idle := p.presence()
		if idle && !p.model.Busy() {
			return
		}
		switch {
		case here && !present:
			stop = p.watch(ctx)
		case present && !here:
			stop()
			p.model.Dismiss()
		}
		present = here
	}
}

// watch keeps the model fresh until stop returns.
func (p *Page) watch(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { p.model.Watch(ctx) })
	return func() {
		cancel()
		watching.Wait()
	}
}

func (p *Page) presence() (here, idle bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	here = p.session != "" && (p.polls > 0 || now.Sub(p.polled) < awayAfter)
	return here, now.Sub(p.used) >= IdleEnd
}

func (p *Page) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.serveShell)
	mux.Handle("GET /page.css", asset("page.css", "text/css; charset=utf-8"))
	mux.Handle("GET /page.js", asset("page.js", "text/javascript; charset=utf-8"))
	mux.HandleFunc("POST /session", p.trade)
	mux.HandleFunc("POST /view", p.open(p.view))
	mux.HandleFunc("POST /wait", p.open(p.wait))
	mux.HandleFunc("POST /do", p.open(p.do))
	mux.HandleFunc("POST /check", p.open(p.check))
	mux.HandleFunc("POST /active", p.open(func(*http.Request, request) (any, error) {
		p.model.Activated()
		return struct{}{}, nil
	}))
	return p.guard(mux)
}

// policy lets nothing in from elsewhere, no script but ours, and no frame.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types osaurus"

// guard refuses what does not come from the page itself: another name in Host
// is a name somebody had resolve to this machine, another Origin is another
// site or port.
func (p *Page) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Frame-Options", "DENY")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Embedder-Policy", "require-corp")
		if r.Host != p.host || !p.ownOrigin(r) {
			refuse(w, http.StatusForbidden)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

func (p *Page) ownOrigin(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	if r.Method == http.MethodPost {
		return len(origins) == 1 && origins[0] == p.origin() && sameSite(r.Header.Get("Sec-Fetch-Site"))
	}
	framed := r.Header.Get("Sec-Fetch-Dest")
	return (len(origins) == 0 || origins[0] == p.origin()) && framed != "iframe" && framed != "frame" && framed != "embed" && framed != "object"
}

func sameSite(site string) bool { return site == "" || site == "same-origin" }

func refuse(w http.ResponseWriter, status int) { http.Error(w, http.StatusText(status), status) }

func (p *Page) serveShell(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(p.shell) // a browser that is gone cannot be told so
}

func asset(name, kind string) http.Handler {
	content, err := resources.Page.ReadFile("page/" + name)
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err != nil {
			refuse(w, http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(content) // a browser that is gone cannot be told so
	})
}

// request is what the script sends.
type request struct {
	Token   string            `json:"token,omitempty"`
	Pane    panes.Pane        `json:"pane,omitempty"`
	Version uint64            `json:"version,omitempty"`
	Action  string            `json:"action,omitempty"`
	Via     panes.Via         `json:"via,omitempty"`
	Values  map[string]string `json:"values,omitempty"`
}

func decode(r *http.Request) (request, error) {
	var in request
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	return in, dec.Decode(&in)
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a browser that is gone cannot be told so
}

// trade gives the session's secret for the token, once.
func (p *Page) trade(w http.ResponseWriter, r *http.Request) {
	in, err := decode(r)
	if err != nil || r.Header.Get(pageHeader) != "1" {
		refuse(w, http.StatusForbidden)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.token == "" || !same(in.Token, p.token) {
		refuse(w, http.StatusForbidden)
		return
	}
	p.token, p.session = "", newSecret()
	p.used, p.polled = p.now(), p.now()
	_ = os.Remove(p.file) // the token in it is spent; Serve removes it too
	reply(w, struct {
		Session string `json:"session"`
	}{p.session})
}

func same(a, b string) bool {
	return a != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}

// open is what every request but the first goes through: the session's secret
// in its header, or nothing.
func (p *Page) open(f func(r *http.Request, in request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		ok := same(r.Header.Get(sessionHeader), p.session)
		p.mu.Unlock()
		in, err := decode(r)
		switch {
		case !ok:
			refuse(w, http.StatusForbidden)
			return
		case err != nil:
			refuse(w, http.StatusBadRequest)
			return
		}
		out, err := f(r, in)
		switch {
		case errors.Is(err, panes.ErrNotOffered), errors.Is(err, panes.ErrOff):
			refuse(w, http.StatusConflict)
		case err != nil:
			refuse(w, http.StatusInternalServerError)
		default:
			reply(w, out)
		}
	}
}

func (p *Page) touch() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used = p.now()
}

func (p *Page) view(_ *http.Request, in request) (any, error) {
	p.touch()
	return draw(p.views, p.model, in.Pane)
}

// wait answers when something has changed. Waiting is no use of the page.
func (p *Page) wait(r *http.Request, in request) (any, error) {
	p.poll(1)
	defer p.poll(-1)
	timeout := time.NewTimer(pollFor)
	defer timeout.Stop()
	for {
		version, next := p.model.Changed()
		if version != in.Version {
			break
		}
		select {
		case <-next:
			continue
		case <-timeout.C:
		case <-r.Context().Done():
		}
		break
	}
	return draw(p.views, p.model, in.Pane)
}

func (p *Page) poll(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.polls += n
	p.polled = p.now()
}

func (p *Page) do(_ *http.Request, in request) (any, error) {
	p.touch()
	return struct{}{}, p.model.Do(panes.Input{Action: in.Action, Values: in.Values, Via: in.Via})
}

func (p *Page) check(_ *http.Request, in request) (any, error) {
	p.touch()
	return struct {
		Text string `json:"text"`
	}{p.model.Check(in.Values)}, nil
}
