package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"osaurus/engine/accesskey"
	"osaurus/engine/address"
	"osaurus/engine/agents"
	"osaurus/engine/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const providerKey = "sk-planted-provider-key"

// provider is a model server on loopback. Its answer is chosen by the model's
// name; what it was sent is kept.
type provider struct {
	*httptest.Server
	release chan struct{} // ends every "hold" answer

	mu   sync.Mutex
	seen []call
	gone chan struct{} // receives once for each held request that was cancelled
}

type call struct {
	Path, Authorization string
	Body                map[string]json.RawMessage
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{release: make(chan struct{}), gone: make(chan struct{}, 100)}
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(func() {
		close(p.release)
		p.CloseClientConnections()
		p.Close()
	})
	return p
}

const finish = `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"

func piece(text string) string {
	return fmt.Sprintf("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":%q},\"finish_reason\":null}]}\n\n", text)
}

// answers are the event streams of the models that need no code.
var answers = map[string]string{
	"good":      piece("Hello") + piece(" world") + finish + "data: [DONE]\n\n",
	"no-finish": piece("Hello") + "data: [DONE]\n\n",
	"crlf":      ": hi\r\nevent: x\r\n" + strings.ReplaceAll(piece("Hello"), "\n", "\r\n") + "data:[DONE]\r\n\r\n",
	"split":     "data: {\"choices\":[{\"index\":0,\ndata: \"delta\":{\"content\":\"Hello\"}}]}\n\ndata: [DONE]\n\n",
	"reasoning": `data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}` + "\n\n" + `data: {"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}` + "\n\n" + piece("Hello") + finish + "data: [DONE]\n\n",
	"tools":     `data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":"{}"}}]},"finish_reason":null}]}` + "\n\n" + `data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}` + "\n\ndata: [DONE]\n\n",
	"usage":     piece("Hello") + finish + `data: {"choices":[],"usage":{"total_tokens":7}}` + "\n\ndata: [DONE]\n\n",
	"hang-up":   piece("Hello"),
	"half-line": piece("Hello") + `data: {"choices":[{"index":0,"delta":{"cont`,
	"garbage":   piece("Hello") + "data: not json\n\n",
	"wrong":     piece("Hello") + `data: {"choices":[{"delta":[]}]}` + "\n\n",
	"error":     piece("Hello") + `data: {"error":{"message":"` + providerKey + `"}}` + "\n\n",
	"empty":     "",
}

func (p *provider) serve(w http.ResponseWriter, r *http.Request) {
	c := call{Path: r.URL.Path, Authorization: r.Header.Get("Authorization")}
	raw, err := io.ReadAll(r.Body)
	if err == nil && len(raw) > 0 {
		err = json.Unmarshal(raw, &c.Body)
	}
	p.mu.Lock()
	p.seen = append(p.seen, c)
	p.mu.Unlock()
	if err != nil {
		http.Error(w, "bad", http.StatusBadRequest)
		return
	}
	if r.URL.Path == "/v1/models" {
		_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"good","created":5},{"id":"other"}]}`)
		return
	}
	var model string
	_ = json.Unmarshal(c.Body["model"], &model)
	p.answer(w, r, model)
}

func (p *provider) answer(w http.ResponseWriter, r *http.Request, model string) {
	flush := func(text string) {
		_, _ = io.WriteString(w, text)
		_ = http.NewResponseController(w).Flush()
	}
	switch {
	case model == "hold": // one piece, then nothing until released or cancelled
		flush(piece("Hello"))
		select {
		case <-r.Context().Done():
			p.gone <- struct{}{}
		case <-p.release:
		}
	case model == "unlimited":
		flush("data: " + strings.Repeat("x", MaxEvent+(128<<10)))
		<-r.Context().Done()
	case strings.HasPrefix(model, "status-"):
		var status int
		_, _ = fmt.Sscanf(model, "status-%d", &status)
		http.Error(w, "provider says "+providerKey, status)
	default:
		text, ok := answers[model]
		if !ok {
			http.Error(w, "no such model", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		flush(text)
	}
}

func (p *provider) last(t *testing.T) call {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.seen) == 0 {
		t.Fatal("the provider was not called")
	}
	return p.seen[len(p.seen)-1]
}

func (p *provider) endpoint() Endpoint {
	return Endpoint{BaseURL: p.URL, Key: secret.New([]byte(providerKey)), Client: p.Client()}
}

func newRunner(t *testing.T, change func(*Config)) *Runner {
	t.Helper()
	c := Config{
		Endpoint: func(context.Context) (Endpoint, error) { return Endpoint{}, nil },
		Chats:    NewMemoryChats(),
		Now:      func() time.Time { return time.Unix(1800000000, 0) },
	}
	if change != nil {
		change(&c)
	}
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// withProvider is a runner whose models are those of a real server.
func withProvider(t *testing.T, change func(*Config)) (*Runner, *provider) {
	t.Helper()
	p := newProvider(t)
	return newRunner(t, func(c *Config) {
		c.Endpoint = func(context.Context) (Endpoint, error) { return p.endpoint(), nil }
		if change != nil {
			change(c)
		}
	}), p
}

var someone = agents.Agent{ID: "11111111-1111-4111-8111-111111111111", Name: "A", SystemPrompt: "Be brief."}

func ask(t testing.TB, model, more string) Request {
	t.Helper()
	req, err := ParseRequest([]byte(fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"Hi there"}]%s}`, model, more)))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// run collects the events of one run.
func run(t *testing.T, r *Runner, who Caller, req Request) string {
	t.Helper()
	admitted, err := r.Admit(t.Context(), who)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := admitted.Stream(someone, req, func(event []byte, _ bool) error { _, err := out.Write(event); return err }); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// peer is a caller with an agent-scoped key.
func peer(audience byte, nonce string) Caller {
	return Caller{&accesskey.Access{Issuer: address.Address{1}, Audience: address.Address{audience}, Nonce: nonce}}
}

var errGone = errors.New("the caller is gone")
