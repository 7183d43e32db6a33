package pairing

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"osaurus/engine/address"
	"osaurus/engine/channel"
	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/internal/base64url"
	"osaurus/engine/secret"
	"osaurus/engine/signature"
)

func TestInviteVectors(t *testing.T) {
	t.Parallel()
	var v struct {
		Invite struct {
			Addr, Nonce, Digest, Sig string
			Exp                      int64
			TextBytes                int
		}
		Sealed struct{ Private, EncPub, Info, Enc, CT, Plaintext string }
		Owner  struct{ Agent, Nonce, Signature string }
	}
	raw, err := os.ReadFile("testdata/vectors/invites.json")
	if err != nil || json.Unmarshal(raw, &v) != nil {
		t.Fatal(err)
	}
	text := inviteText(v.Invite.Addr, v.Invite.Nonce, v.Invite.Exp)
	digest := signature.SignedInvite.Digest(text)
	sig, err := alice(t).Sign(t.Context(), digest)
	if err != nil || len(text) != v.Invite.TextBytes || sig.Hex() != v.Invite.Sig {
		t.Error("invite:", len(text), sig.Hex(), err)
	}
	addr, _ := address.Parse(v.Invite.Addr)
	if err := (Invite{Addr: v.Invite.Addr, Nonce: v.Invite.Nonce, Exp: v.Invite.Exp, Sig: v.Invite.Sig}).verify(addr); err != nil {
		t.Error(err)
	}
	private, err := hex.DecodeString(v.Sealed.Private)
	if err != nil {
		t.Fatal(err)
	}
	if info := string(sealInfo(addr, v.Invite.Nonce)); info != v.Sealed.Info {
		t.Error("info", info)
	}
	plain, err := recipient{secret.New(private)}.open(Sealed{v.Sealed.Enc, v.Sealed.CT}, []byte(v.Sealed.Info))
	if err != nil || string(plain.Expose()) != v.Sealed.Plaintext {
		t.Error("sealed:", err)
	}
	agent, _ := address.Parse(v.Owner.Agent)
	sig, err = alice(t).Sign(t.Context(), signature.EthereumMessage.Digest(ownerText(agent, v.Owner.Nonce)))
	if err != nil || sig.String() != v.Owner.Signature {
		t.Error("owner:", sig, err)
	}
}

// linkOf writes a link by hand.
func linkOf(host, text string) string {
	return "osaurus://" + host + "?pair=" + base64url.Encode([]byte(text))
}

func TestParseLink(t *testing.T) {
	t.Parallel()
	h := newInviting(t)
	in := h.issue()
	link, err := in.Link()
	if err != nil {
		t.Fatal(err)
	}
	host := h.agent.Address.Lower()
	if !strings.HasPrefix(link, "osaurus://"+host+"?pair=") || strings.Contains(link, "=="[:1]+"&") {
		t.Error(link)
	}
	raw, err := base64url.Decode(strings.TrimPrefix(link, "osaurus://"+host+"?pair="))
	if err != nil || !bytes.Contains(raw, []byte(`"url":"https://`)) {
		t.Fatal(string(raw), err)
	}
	pair := strings.TrimPrefix(link, "osaurus://"+host+"?")
	edit := func(change func(m map[string]any)) string {
		var m map[string]any
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		if err := dec.Decode(&m); err != nil {
			t.Fatal(err)
		}
		change(m)
		out, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return linkOf(host, string(out))
	}
	at := func(u string) string { return edit(func(m map[string]any) { m["url"] = u }) }
	place := host + "." + domain
	for name, c := range map[string]struct {
		link string
		want error
	}{
		"as issued":               {link, nil},
		"white space around":      {" \n" + link + "\n", nil},
		"scheme in capitals":      {"OSAURUS" + strings.TrimPrefix(link, "osaurus"), nil},
		"host with its checksum":  {"osaurus://" + h.agent.Address.String() + "?" + pair, nil},
		"a slash before the ?":    {"osaurus://" + host + "/?" + pair, nil},
		"padded":                  {link + strings.Repeat("=", (4-(len(pair)-5)%4)%4), nil},
		"escaped slashes":         {linkOf(host, strings.ReplaceAll(string(raw), "/", `\/`)), nil},
		"other members":           {edit(func(m map[string]any) { m["more"] = []any{1} }), nil},
		"signature with 0x":       {edit(func(m map[string]any) { m["sig"] = "0x" + in.Sig }), nil},
		"other name and desc":     {edit(func(m map[string]any) { m["name"], m["desc"] = "Bank", "x" }), nil},
		"url with a slash":        {at("https://" + place + "/"), nil},
		"url in capitals":         {at("HTTPS://" + strings.ToUpper(place)), nil},
		"empty":                   {"", ErrLink},
		"other scheme":            {"https" + strings.TrimPrefix(link, "osaurus"), ErrLink},
		"no host":                 {"osaurus:?" + pair, ErrLink},
		"opaque":                  {"osaurus:" + host + "?" + pair, ErrLink},
		"other host":              {"osaurus://" + h.master.Address().Lower() + "?" + pair, ErrLink},
		"user before the host":    {"osaurus://bank@" + host + "?" + pair, ErrLink},
		"port":                    {"osaurus://" + host + ":1?" + pair, ErrLink},
		"path":                    {"osaurus://" + host + "/x?" + pair, ErrLink},
		"fragment":                {link + "#x", ErrLink},
		"two pairs":               {link + "&" + pair, ErrLink},
		"no pair":                 {"osaurus://" + host, ErrLink},
		"bad base64":              {link + "!", ErrLink},
		"not JSON":                {linkOf(host, "{"), ErrLink},
		"a member twice":          {linkOf(host, strings.Replace(string(raw), "{", `{"v":1,`, 1)), ErrLink},
		"too long":                {linkOf(host, `{"v":1,"x":"`+strings.Repeat("x", maxLink)+`"}`), ErrLink},
		"v 2":                     {edit(func(m map[string]any) { m["v"] = 2 }), ErrLinkVersion},
		"v 2 of another form":     {linkOf(host, `{"v":2}`), ErrLinkVersion},
		"no v":                    {edit(func(m map[string]any) { delete(m, "v") }), ErrLinkVersion},
		"addr of another":         {edit(func(m map[string]any) { m["addr"] = h.master.Address().String() }), ErrLink},
		"addr in lower case":      {edit(func(m map[string]any) { m["addr"] = host }), ErrLinkSigned},
		"other nonce":             {edit(func(m map[string]any) { m["nonce"] = strings.Repeat("A", 43) }), ErrLinkSigned},
		"short nonce":             {edit(func(m map[string]any) { m["nonce"] = "AAAA" }), ErrLink},
		"later exp":               {edit(func(m map[string]any) { m["exp"] = in.Exp + 1 }), ErrLinkSigned},
		"no sig":                  {edit(func(m map[string]any) { delete(m, "sig") }), ErrLinkSigned},
		"no url":                  {edit(func(m map[string]any) { delete(m, "url") }), ErrLinkHost},
		"http":                    {at("http://" + place), ErrLinkHost},
		"no scheme":               {at("//" + place), ErrLinkHost},
		"another domain":          {at("https://" + host + ".evil.example"), ErrLinkHost},
		"another agent":           {at("https://" + h.master.Address().Lower() + "." + domain), ErrLinkHost},
		"the domain itself":       {at("https://" + domain), ErrLinkHost},
		"a longer domain":         {at("https://" + place + ".evil.example"), ErrLinkHost},
		"a label more":            {at("https://x." + place), ErrLinkHost},
		"a dot at the end":        {at("https://" + place + "."), ErrLinkHost},
		"user":                    {at("https://" + place + "@evil.example"), ErrLinkHost},
		"empty user":              {at("https://@" + place), ErrLinkHost},
		"password":                {at("https://a:b@" + place), ErrLinkHost},
		"url with a port":         {at("https://" + place + ":443"), ErrLinkHost},
		"url with an empty port":  {at("https://" + place + ":"), ErrLinkHost},
		"url with a path":         {at("https://" + place + "/x"), ErrLinkHost},
		"two slashes":             {at("https://" + place + "//"), ErrLinkHost},
		"backslash":               {at(`https://` + place + `\@evil.example`), ErrLinkHost},
		"url with a query":        {at("https://" + place + "?x"), ErrLinkHost},
		"empty query":             {at("https://" + place + "?"), ErrLinkHost},
		"empty fragment":          {at("https://" + place + "#"), ErrLinkHost},
		"a letter that folds":     {at("https://" + strings.Replace(place, "relay", "re\u017fay", 1)), ErrLinkHost},
		"white space in the url":  {at("https://" + place + " "), ErrLinkHost},
		"a line feed in the url":  {at("https://" + place + "\n"), ErrLinkHost},
		"percent-encoded":         {at("https://" + strings.Replace(place, ".", "%2e", 1)), ErrLinkHost},
		"fullwidth dot in place":  {at("https://" + host + "\uff0e" + domain), ErrLinkHost},
		"letter outside of ASCII": {strings.Replace(link, "osaurus", "o\u017faurus", 1), ErrLink},
	} {
		got, addr, err := ParseLink(c.link, domain, h.time())
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
		if err == nil && (addr != h.agent.Address || got.Nonce != in.Nonce || got.Exp != in.Exp) {
			t.Errorf("%s: %+v", name, got)
		}
		if err == nil {
			if u, err := PlaceOf(got.URL, addr, domain); err != nil || u.String() != "https://"+place {
				t.Errorf("%s: %v, %v", name, u, err)
			}
		}
	}
	if _, _, err := ParseLink(link, domain, time.Unix(in.Exp, 0)); !errors.Is(err, ErrLinkExpired) {
		t.Error("expired:", err)
	}
	if _, _, err := ParseLink(link, domain, time.Unix(in.Exp-1, 0)); err != nil {
		t.Error("in its last second:", err)
	}
}

func TestLocalPlace(t *testing.T) {
	t.Parallel()
	a := alice(t).Address()
	for domain, ok := range map[string]bool{"localhost": true, "localhost:8080": true, "relay.localhost": true, "LOCALHOST:1": true, "localhost.example": false, "notlocalhost": false} {
		if Local(domain) != ok {
			t.Error(domain)
		}
		_, err := PlaceOf("http://"+a.Lower()+"."+domain, a, domain)
		if (err == nil) != ok {
			t.Errorf("http at %s: %v", domain, err)
		}
	}
	if _, err := PlaceOf("http://"+a.Lower()+".localhost:81", a, "localhost:80"); !errors.Is(err, ErrLinkHost) {
		t.Error("another port:", err)
	}
}

// channelHost serves the invites of h inside the Secure Channel only, behind a
// relay that middle may play; it counts what reaches the invites.
func channelHost(t *testing.T, h *inviting, middle func(w http.ResponseWriter, r *http.Request, forward http.Handler)) (client *http.Client, calls *atomic.Int64) {
	t.Helper()
	calls = &atomic.Int64{}
	sc := channel.NewServer(channel.Config{Signer: func(_ context.Context, a address.Address) (identity.Signer, error) {
		if a != h.agent.Address {
			return nil, fault.UnknownAgentAddress
		}
		return h.signer, nil
	}, Now: h.time})
	t.Cleanup(sc.Close)
	inner := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		body, _ := io.ReadAll(r.Body)
		g, err := h.Redeem(r.Context(), body, "")
		if err != nil {
			fault.Write(w, err)
			return
		}
		_, err = w.Write(g.Body)
		g.Delivered(err)
	})
	outer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/secure/session":
			sc.ServeSession(w, r, "relay")
		case "/secure/call":
			sc.ServeCall(w, r, inner)
		default:
			http.NotFound(w, r)
		}
	})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { middle(w, r, outer) }))
	t.Cleanup(srv.Close)
	base := &http.Transport{DialContext: srv.Client().Transport.(*http.Transport).DialContext}
	t.Cleanup(base.CloseIdleConnections)
	place := &url.URL{Scheme: "https", Host: h.agent.Address.Lower() + "." + domain}
	tr := channel.NewTransport(channel.TransportConfig{Base: redirected{base, srv.Listener.Addr().String()}, Peer: place, Pinned: h.agent.Address, Now: h.time})
	t.Cleanup(tr.Close)
	return &http.Client{Transport: tr}, calls
}

// redirected sends everything to one place on this machine.
type redirected struct {
	base http.RoundTripper
	to   string
}

func (d redirected) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = "http", d.to
	return d.base.RoundTrip(r)
}

func honest(w http.ResponseWriter, r *http.Request, forward http.Handler) { forward.ServeHTTP(w, r) }

func TestAcceptThroughTheChannel(t *testing.T) {
	t.Parallel()
	h := newInviting(t)
	client, calls := channelHost(t, h, honest)
	in := h.issue()
	got, err := Accept(t.Context(), client, in, h.agent.Address, domain, nil)
	if err != nil || got.Address != h.agent.Address || got.Name != "Assistant" || got.Expires == 0 || !h.works(string(got.Key.Expose())) {
		t.Fatalf("%+v, %v", got, err)
	}
	_, err = Accept(t.Context(), client, in, h.agent.Address, domain, nil)
	if refused := (*Refused)(nil); !errors.As(err, &refused) || refused.Status != 409 || refused.Text != "Invite has already been redeemed" {
		t.Error("again:", err)
	}
	place := &url.URL{Scheme: "https", Host: h.agent.Address.Lower() + "." + domain}
	own, err := RedeemOwner(t.Context(), client, h.master, place, h.agent.Address, Device{"mac-1", "Mac"}, nil)
	if err != nil || !h.works(string(own.Key.Expose())) || calls.Load() != 4 {
		t.Fatalf("%+v, %v after %d calls", own, err, calls.Load())
	}
	if _, err := RedeemOwner(t.Context(), client, h.signer, place, h.agent.Address, Device{"mac-1", ""}, nil); err == nil {
		t.Error("another master got a key")
	}
}

// TestHostileRelay: who stands between a connector and the host gets no key
// and makes nothing happen twice (decisions C2 and C6).
func TestHostileRelay(t *testing.T) {
	t.Parallel()
	mallory, err := alice(t).Agent(identity.Path{Index: 9})
	if err != nil {
		t.Fatal(err)
	}
	status := func(code int, body string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
			if r.URL.Path != "/secure/call" {
				forward.ServeHTTP(w, r)
				return
			}
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	}
	// after lets the host answer, and gives the connector something else.
	after := func(code int, body string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
			if r.URL.Path == "/secure/call" {
				forward.ServeHTTP(httptest.NewRecorder(), r)
			}
			status(code, body)(w, r, forward)
		}
	}
	lost := `{"error":{"code":"secure_session_unknown","message":"Unknown or expired secure session","type":"secure_channel_error"}}`
	for name, c := range map[string]struct {
		middle func(http.ResponseWriter, *http.Request, http.Handler)
		want   func(error) bool
		calls  int64
	}{
		"no channel":                {func(w http.ResponseWriter, r *http.Request, _ http.Handler) { http.NotFound(w, r) }, is(channel.ErrPeerMustUpgrade), 0},
		"a forged success":          {status(200, `{"agentAddress":"x","apiKey":"osk-v1.a.b"}`), is(channel.ErrMalformed), 0},
		"a forged refusal":          {status(403, `{"error":"Invite was revoked"}`), notRefused, 0},
		"a lost session":            {status(401, lost), is(channel.ErrSessionLost), 0},
		"a lost session afterwards": {after(401, lost), is(channel.ErrSessionLost), 1},
		"an error afterwards":       {after(502, "bad gateway"), notRefused, 1},
		"a redirect afterwards":     {after(307, ""), notRefused, 1},
		"another agent answers": {func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			sc := channel.NewServer(channel.Config{Signer: func(context.Context, address.Address) (identity.Signer, error) { return mallory, nil }, Now: func() time.Time { return time.Unix(1_800_000_000, 0) }})
			defer sc.Close()
			sc.ServeSession(w, r, "x")
		}, func(err error) bool { return err != nil }, 0},
		"it asks for the invite itself": {func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
			body, _ := io.ReadAll(r.Body)
			if bytes.Contains(body, []byte("nonce\":\"AAEC")) || bytes.Contains(body, []byte(domain)) || r.URL.Path == "/pair-invite" {
				t.Error("the invite was sent outside the channel")
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			forward.ServeHTTP(w, r)
		}, func(err error) bool { return err == nil }, 1},
		"it replays the call": {func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			forward.ServeHTTP(w, r)
			if r.URL.Path == "/secure/call" {
				again := httptest.NewRequest(http.MethodPost, "/secure/call", bytes.NewReader(body))
				rec := httptest.NewRecorder()
				forward.ServeHTTP(rec, again)
				if rec.Code != 409 {
					t.Errorf("a replay answered %d %s", rec.Code, rec.Body)
				}
			}
		}, func(err error) bool { return err == nil }, 1},
		"it changes the call": {func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
			if r.URL.Path == "/secure/call" {
				body, _ := io.ReadAll(r.Body)
				i := bytes.Index(body, []byte(`"ct":"`)) + 20
				body[i] ^= 1
				r.Body = io.NopCloser(bytes.NewReader(body))
			}
			forward.ServeHTTP(w, r)
		}, notRefused, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newInviting(t)
			client, calls := channelHost(t, h, c.middle)
			in := h.issue()
			got, err := Accept(t.Context(), client, in, h.agent.Address, domain, nil)
			if !c.want(err) || calls.Load() != c.calls {
				t.Errorf("%v after %d calls, want %d", err, calls.Load(), c.calls)
			}
			if err != nil && got.Key.Len() != 0 {
				t.Error("a key came with an error")
			}
			if h.alive() > int(c.calls) {
				t.Errorf("%d keys", h.alive())
			}
		})
	}
}

func is(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }

// notRefused: an error, but none that reads as the host's own refusal.
func notRefused(err error) bool {
	refused := (*Refused)(nil)
	return err != nil && !errors.As(err, &refused)
}

// TestLyingHosts: the connector takes nothing but a key of the pinned agent,
// sealed to it.
func TestLyingHosts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit func(h *inviting, r map[string]any)
		want error
	}{
		"other address": {func(h *inviting, r map[string]any) { r["agentAddress"] = h.master.Address().String() }, ErrWrongAgent},
		"no address":    {func(_ *inviting, r map[string]any) { delete(r, "agentAddress") }, ErrWrongAgent},
		"in clear":      {func(_ *inviting, r map[string]any) { r["apiKey"] = "osk-v1.a.b" }, ErrNotSealed},
		"not sealed":    {func(_ *inviting, r map[string]any) { delete(r, "sealedApiKey") }, ErrNotSealed},
		"sealed wrong":  {func(_ *inviting, r map[string]any) { r["sealedApiKey"] = Sealed{w64, "AAAA"} }, errSealed},
		"other url":     {func(_ *inviting, r map[string]any) { r["relayBaseURL"] = "https://evil.example" }, nil},
	} {
		h := newInviting(t)
		in := h.issue()
		client := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			body, _ := io.ReadAll(r.Body)
			g, err := h.Redeem(r.Context(), body, "")
			if err != nil {
				return nil, err
			}
			var reply map[string]any
			_ = json.Unmarshal(g.Body, &reply)
			c.edit(h, reply)
			raw, err := json.Marshal(reply)
			return &http.Response{StatusCode: 200, Body: io.NopCloser(bytes.NewReader(raw))}, err
		})}
		got, err := Accept(t.Context(), client, in, h.agent.Address, domain, nil)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && got.URL.Host != h.agent.Address.Lower()+"."+domain {
			t.Errorf("%s: goes to %s", name, got.URL)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzParseLink: what is taken is signed by the agent it names and goes to the
// agent's own place.
func FuzzParseLink(f *testing.F) {
	h := newInviting(f)
	link, err := h.issue().Link()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(link)
	f.Add("OSAURUS://" + strings.TrimPrefix(link, "osaurus://"))
	f.Add(linkOf(h.agent.Address.Lower(), `{"v":1}`))
	f.Add("osaurus://x@y:1/z?pair=AAAA#f")
	f.Fuzz(func(t *testing.T, link string) {
		in, addr, err := ParseLink(link, domain, h.time())
		if err != nil {
			return
		}
		if in.verify(addr) != nil || addr != h.agent.Address || in.Exp <= h.now.Load() {
			t.Fatalf("took %+v", in)
		}
		if u, err := PlaceOf(in.URL, addr, domain); err != nil || u.String() != "https://"+addr.Lower()+"."+domain {
			t.Fatalf("goes to %v, %v", u, err)
		}
	})
}
