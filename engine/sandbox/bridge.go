package sandbox

import (
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"osaurus/engine/internal/canonjson"
)

// Config configures New. Every port is required.
type Config struct {
	Tokens     *Tokens
	Secrets    SecretStore
	Settings   ConfigStore
	Inference  Inference
	Dispatcher Dispatcher
	Memory     Memory
	Events     EventBus
	Plugins    PluginRegistrar
	Logs       LogSink
	Rates      Rates                                  // zero means DefaultRates
	Now        func() time.Time                       // nil means time.Now
	Log        func(event string, attrs ...slog.Attr) // the security log; nil drops records
}

// Bridge answers what sandboxed agents ask of the host. It is safe for
// concurrent use.
type Bridge struct {
	c      Config
	limits limiters
	audit  *audit
	held   atomic.Int64 // bytes of bodies in memory
	quiet  *log.Logger  // net/http's remarks about guests' broken requests
}

// NewBridge returns a bridge; Channel serves it.
func NewBridge(c Config) *Bridge {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rates == (Rates{}) {
		c.Rates = DefaultRates
	}
	if c.Log == nil {
		c.Log = func(string, ...slog.Attr) {}
	}
	return &Bridge{c: c, limits: newLimiters(c.Rates, c.Now), audit: newAudit(c.Log, c.Now), quiet: log.New(io.Discard, "", 0)}
}

// call is one request that was authenticated.
type call struct {
	*Bridge
	r    *http.Request
	who  Identity
	path []string // segments after "api"
	body []byte
}

// failure is a refusal: its text goes to the guest, why to the audit record.
type failure struct {
	status int
	text   string
	why    refusal
	retry  time.Duration
	allow  string // methods, with 405
}

func (f *failure) Error() string { return f.text }

func refuse(status int, text string) error { return &failure{status: status, text: text} }

const unauthorised = "Bridge token missing or unrecognised"

// ServeHTTP implements http.Handler: body cap, token, path, route, in this
// order (section 3 of PROTOCOL.md).
func (b *Bridge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p, err := peerOf(r.Context())
	if err != nil {
		b.answer(w, nil, refuse(http.StatusInternalServerError, "Internal error"))
		return
	}
	path := segments(r.RequestURI)
	result, err := b.handle(w, r, p, path)
	var f *failure
	if errors.As(err, &f) && f.why != "" {
		b.audit.refused(p, routeName(path), f.status, f.why)
	}
	b.answer(w, result, err)
}

func (b *Bridge) handle(w http.ResponseWriter, r *http.Request, p peer, path []string) (any, error) {
	if r.ContentLength > MaxBody {
		return nil, overLimit(r.ContentLength)
	}
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(BodyTimeout)); err != nil {
		return nil, refuse(http.StatusInternalServerError, "Internal error")
	}
	who, why := b.identify(p, r.Header)
	if why != "" {
		// Only counted, to tell 413 from 401.
		n, err := io.Copy(io.Discard, io.LimitReader(r.Body, MaxBody+1))
		if n > MaxBody {
			return nil, overLimit(n)
		}
		if err != nil {
			return nil, errIncomplete
		}
		return nil, &failure{status: http.StatusUnauthorized, text: unauthorised, why: why}
	}
	body, release, err := b.read(r)
	defer release()
	if err != nil {
		return nil, err
	}
	// From here on the connection is read only to notice that it closed.
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		return nil, errIncomplete
	}
	if len(path) < 2 || path[0] != "api" {
		return nil, refuse(http.StatusNotFound, "Not found")
	}
	return (&call{Bridge: b, r: r, who: who, path: path[1:], body: body}).route()
}

var errIncomplete = refuse(http.StatusRequestTimeout, "Request body incomplete")

func overLimit(n int64) error {
	return &failure{status: http.StatusRequestEntityTooLarge, text: "Request body too large (" + strconv.FormatInt(n, 10) + " > " + strconv.Itoa(MaxBody) + " bytes)", why: tooLarge}
}

// identify wants three factors that agree: the sandbox the stream came from,
// the token, and the user the guest's relay saw. No two of them are enough.
// A refusal tells the caller nothing about which was wrong.
func (b *Bridge) identify(p peer, h http.Header) (Identity, refusal) {
	token := bearer(h)
	id, known := b.c.Tokens.Resolve([]byte(token))
	switch {
	case token == "":
		return Identity{}, noToken
	case !known:
		return Identity{}, unknownToken
	case p.uid == 0:
		return Identity{}, rootCaller
	case id.Sandbox != p.sandbox || p.agentID != "" && p.agentID != id.AgentID:
		return Identity{}, wrongSandbox
	case id.UID != p.uid:
		return Identity{}, wrongUser
	}
	return id, ""
}

// bearer returns the token of the one Authorization header, "" for none.
func bearer(h http.Header) string {
	list := h.Values("Authorization")
	if len(list) != 1 {
		return ""
	}
	scheme, token, _ := strings.Cut(strings.TrimSpace(list[0]), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// read returns the body. What all calls together hold is bounded; release
// gives it back.
func (b *Bridge) read(r *http.Request) (body []byte, release func(), err error) {
	var reserved int64
	release = func() { b.held.Add(-reserved) }
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Body.Read(buf)
		if len(body)+n > MaxBody {
			return nil, release, overLimit(int64(len(body) + n))
		}
		if n > 0 {
			reserved += int64(n)
			if b.held.Add(int64(n)) > MaxHeld {
				return nil, release, &failure{status: http.StatusServiceUnavailable, text: "Bridge overloaded", retry: time.Second}
			}
			body = append(body, buf[:n]...)
		}
		if errors.Is(err, io.EOF) {
			return body, release, nil
		}
		if err != nil {
			return nil, release, errIncomplete
		}
	}
}

// segments drops the query and empty segments. Nothing is decoded.
func segments(target string) []string {
	path, _, _ := strings.Cut(target, "?")
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// answer writes one JSON object with its length.
func (b *Bridge) answer(w http.ResponseWriter, result any, err error) {
	status := http.StatusOK
	if err != nil {
		var f *failure
		if !errors.As(err, &f) {
			f = &failure{status: http.StatusInternalServerError, text: "Internal error"}
		}
		status, result = f.status, map[string]string{"error": f.text}
		if f.retry > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int((f.retry+time.Second-1)/time.Second)))
		}
		if f.allow != "" {
			w.Header().Set("Allow", f.allow)
		}
		if status == http.StatusRequestEntityTooLarge || status == http.StatusRequestTimeout {
			w.Header().Set("Connection", "close")
		}
	}
	raw, err := canonjson.Marshal(result)
	if err != nil {
		status, raw = http.StatusInternalServerError, []byte(`{"error":"Internal error"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(raw)))
	w.WriteHeader(status)
	_, _ = w.Write(raw) //nolint:gosec // JSON, for programs; a guest that is gone cannot be told so
}
