package server

import (
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"

	"osaurus/engine/agents"
)

// The model: server.md's tables, line by line, in the plainest words there are.

// gateWant is an answer as the model expects it.
type gateWant struct {
	status int
	body   string   // the whole body; "" leaves it to the next two
	holds  []string // texts in the body
	lacks  []string
	origin string // Access-Control-Allow-Origin
	empty  bool   // no body at all
}

func (w gateWant) matches(body string) bool {
	if w.empty {
		return body == ""
	}
	if w.body != "" {
		return body == w.body
	}
	for _, text := range w.holds {
		if !strings.Contains(body, text) {
			return false
		}
	}
	for _, text := range w.lacks {
		if strings.Contains(body, text) {
			return false
		}
	}
	return true
}

func e1(text string) string {
	return `{"error":{"message":"` + text + `","type":"authentication_error"}}`
}

func e3(code, text string) string { return `{"error":"` + code + `","message":"` + text + `"}` }

const (
	wantScope     = `{"error":{"code":"agent_scope_denied","message":"This access key is limited to its agent.","type":"permission_error"}}`
	wantInference = `{"error":{"code":"peer_inference_disabled","message":"Inference for paired peers is turned off on this host.","type":"permission_error"}}`
	wantChannel   = `{"error":{"code":"secure_channel_required","message":"This peer requires end-to-end encryption for agent requests. Upgrade Osaurus to a version that supports the secure channel.","type":"upgrade_required"}}`
)

// gateBody is what a request sends: never something that starts a run.
func gateBody(in gateInput) string {
	if strings.Contains(in.target, "/chat/completions") {
		return `{"n":2,"messages":[{"role":"user","content":"x"}]}`
	}
	return "[]"
}

// modelPath is the first paragraph of server.md.
func modelPath(target string) string {
	path := strings.Split(target, "?")[0]
	switch {
	case path == "/v1/api", path == "/api", path == "/v1":
		return "/"
	case strings.HasPrefix(path, "/v1/api/"):
		return path[len("/v1/api"):]
	case strings.HasPrefix(path, "/api/"):
		return path[len("/api"):]
	case strings.HasPrefix(path, "/v1/"):
		return path[len("/v1"):]
	}
	return path
}

// modelLoopback reports an address of 127.0.0.0/8, ::1 or ::ffff:127.0.0.0/104.
func modelLoopback(remote string) bool {
	host, _, err := net.SplitHostPort(remote)
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}

var originForm = regexp.MustCompile(`^(?i:https?)://([^/?#@\[\]:]+|\[[0-9a-fA-F:]+\])(?::([0-9]+))?$`)

// modelLocalOrigin is decisions C3: http(s) on localhost, 127.0.0.0/8, [::1].
func modelLocalOrigin(o string) bool {
	m := originForm.FindStringSubmatch(o)
	if m == nil {
		return false
	}
	if m[2] != "" {
		if port, err := strconv.Atoi(m[2]); err != nil || port > 65535 {
			return false
		}
	}
	if strings.HasPrefix(m[1], "[") {
		return net.ParseIP(strings.Trim(m[1], "[]")).Equal(net.IPv6loopback)
	}
	return strings.EqualFold(m[1], "localhost") || strings.HasPrefix(m[1], "127.") && net.ParseIP(m[1]) != nil
}

// modelTrusted is decisions C3 and server.md's "loopback".
func modelTrusted(in gateInput, port int) bool {
	relayed := in.tunnel || in.header.Get(relayHeader) != ""
	if !modelLoopback(in.remote) || relayed || in.set.Expose || !in.set.LoopbackTrust {
		return false
	}
	ours := false
	for _, name := range []string{"localhost", "127.0.0.1", "[::1]"} {
		ours = ours || strings.ToLower(in.host) == fmt.Sprintf("%s:%d", name, port) || port == 80 && strings.ToLower(in.host) == name
	}
	if !ours {
		return false
	}
	for name, values := range in.header {
		switch {
		case name == "Forwarded", name == "Via", name == "X-Real-Ip", strings.HasPrefix(name, "X-Forwarded-"):
			return false
		case name == "Sec-Fetch-Site" && strings.ToLower(strings.TrimSpace(values[0])) == "cross-site":
			return false
		}
	}
	for _, o := range in.header["Origin"] {
		listed := false
		for _, entry := range in.set.CORS {
			listed = listed || entry != "*" && entry == o
		}
		if !listed && !modelLocalOrigin(o) {
			return false
		}
	}
	return true
}

// modelOrigin is server.md's CORS section.
func modelOrigin(in gateInput, trusted bool) string {
	origin := in.header.Get("Origin")
	for _, entry := range in.set.CORS {
		if entry == "*" {
			return "*"
		}
	}
	for _, entry := range in.set.CORS {
		if origin != "" && entry == origin {
			return origin
		}
	}
	if trusted && modelLocalOrigin(origin) {
		return origin
	}
	return ""
}

// modelKeys says what each kind of bearer is: rows 4 to 6.
var modelKeys = map[string]string{
	"master": "", "agent": "", "other": "",
	"revoked": "Access key has been revoked", "both": "Access key has been revoked", "expired": "Access key has expired",
	"foreign": "Issuer not whitelisted", "audience": "Audience mismatch", "issuer": "Issuer mismatch", "signature": "Invalid signature encoding",
	"encoding": "Invalid payload encoding", "payload": "Malformed payload", "two": "Unrecognized token format", "v2": "Unrecognized token format", "empty": "Unrecognized token format",
}

// modelBearer returns the kind of key ("" is none) and the text that refuses.
func modelBearer(in gateInput) (kind, refusal string) {
	if len(in.authorization) != 1 || !strings.HasPrefix(strings.ToLower(in.authorization[0]), "bearer ") {
		return "", "Unrecognized token format"
	}
	if text := modelKeys[in.bearer]; text != "" {
		return "", text
	}
	if !in.configured {
		return "", "Audience mismatch" // the keys are those of the other host
	}
	return in.bearer, ""
}

func gateModel(in gateInput, h *host) gateWant {
	fields := len(in.authorization)
	for _, values := range in.header {
		fields += len(values)
	}
	if in.agentHeader != "" {
		fields++
	}
	if in.host != "" && !in.inside {
		fields++
	}
	if fields > MaxHeaderFields {
		return gateWant{status: 431, body: `{"error":{"message":"Request header fields too large","type":"request_header_fields_too_large"}}`}
	}
	path, limit := modelPath(in.target), int64(33_554_432)
	switch path {
	case "/pair", "/pair/challenge", "/pair-invite", "/secure/session":
		limit = 65_536
	}
	if in.declared > limit {
		return gateWant{status: 413, body: fmt.Sprintf(`{"error":{"message":"Request body too large (%d > %d bytes)","type":"payload_too_large"}}`, in.declared, limit)}
	}
	outer := modelTrusted(in, h.port)
	want := modelGate(in, h, path, outer && !in.inside)
	want.origin = modelOrigin(in, outer)
	if in.method == "HEAD" {
		want.body, want.holds, want.lacks = "", nil, nil
	}
	return want
}

func modelGate(in gateInput, h *host, path string, trusted bool) gateWant {
	if in.method == "OPTIONS" {
		return gateWant{status: 204, empty: true}
	}
	if path == "/secure/call" && in.method == "POST" {
		return gateWant{status: 400, body: `{"error":{"code":"secure_malformed","message":"Malformed secure envelope","type":"secure_channel_error"}}`}
	}
	kind, refusal := modelBearer(in)
	public := path == "/" || path == "/health" || path == "/pair" || path == "/pair/challenge" || path == "/pair-invite" || path == "/secure/session"
	agentRun := in.method == "POST" && strings.HasPrefix(path, "/agents/") && (strings.HasSuffix(path, "/run") || strings.HasSuffix(path, "/dispatch")) && strings.Count(path, "/") == 3 && !strings.Contains(path, "//")
	physical := modelLoopback(in.remote) && !in.tunnel && in.header.Get(relayHeader) == ""
	scoped := kind == "agent" || kind == "other"
	if !public {
		switch {
		case trusted && !scoped: // row 2
		case !trusted && !in.configured:
			return gateWant{status: 401, body: e1("No access keys configured. Create one in Osaurus settings.")}
		case !trusted && refusal != "" && strings.HasPrefix(refusal, "Access key"):
			return gateWant{status: 401, body: e1(refusal)}
		case !trusted && refusal != "":
			return gateWant{status: 401, body: e1("Invalid access key: " + refusal)}
		case scoped && (path == "/admin" || strings.HasPrefix(path, "/admin/")):
			return gateWant{status: 403, body: wantScope}
		case scoped && path == "/chat/completions" && !in.set.PeerInference:
			return gateWant{status: 403, body: wantInference}
		case scoped && modelOthersHeader(in, h, kind):
			return gateWant{status: 403, body: wantScope}
		}
		if (agentRun || in.set.RequireChannel) && !trusted && !in.inside && !physical {
			return gateWant{status: 426, body: wantChannel}
		}
	}
	if in.method == "HEAD" {
		return gateWant{status: 204, empty: true}
	}
	return modelRoute(in, h, path, kind, trusted, physical)
}

// modelOthersHeader reports an X-Osaurus-Agent-Id that names another or an
// unknown agent. Built-in agents, and what names none, do not confine.
func modelOthersHeader(in gateInput, h *host, kind string) bool {
	own := h.agent
	if kind == "other" {
		own = h.other
	}
	header := strings.TrimSpace(in.agentHeader)
	return header != "" && header != agents.DefaultID && header != "nonsense" && !strings.EqualFold(header, own.ID) && !strings.EqualFold(header, own.Address.String())
}

func modelRoute(in gateInput, h *host, path, kind string, trusted, physical bool) gateWant {
	owner := trusted && kind == "" || kind == "master"
	scoped := !owner && (kind == "agent" || kind == "other")
	notFound := gateWant{status: 404, body: "Not Found"}
	switch in.method + " " + path {
	case "GET /":
		return gateWant{status: 200, body: "Osaurus is running.\n"}
	case "GET /health":
		if owner {
			return gateWant{status: 200, holds: []string{`"status":"healthy"`, "keystore", "version"}}
		}
		return gateWant{status: 200, holds: []string{`"status":"healthy"`}, lacks: []string{"keystore", "version"}}
	case "GET /models":
		if scoped && !in.set.PeerInference {
			return gateWant{status: 200, body: `{"data":[],"object":"list"}`}
		}
		return gateWant{status: 200, holds: []string{`"id":"echo"`}}
	case "POST /chat/completions":
		return gateWant{status: 400, body: `{"error":{"message":"n must be 1: this host returns one choice","type":"invalid_request_error"}}`}
	case "GET /agents":
		mine, theirs := h.agent.Address.Lower(), h.other.Address.Lower()
		switch {
		case owner:
			return gateWant{status: 200, holds: []string{mine, theirs}, lacks: []string{agents.DefaultID}}
		case kind == "other":
			return gateWant{status: 200, holds: []string{theirs}, lacks: []string{mine, agents.DefaultID}}
		}
		return gateWant{status: 200, holds: []string{mine}, lacks: []string{theirs, agents.DefaultID}}
	case "POST /memory/ingest":
		return gateWant{status: 400, body: "Invalid request format"}
	case "GET /pair/challenge":
		return gateWant{status: 200, holds: []string{`"nonce"`}}
	case "POST /pair":
		return gateWant{status: 400, body: `{"error":"Invalid pairing request"}`}
	case "POST /pair-invite":
		return gateWant{status: 400, body: `{"error":"Invalid invite payload"}`}
	case "POST /secure/session":
		return gateWant{status: 400, body: `{"error":"Invalid handshake request"}`}
	case "GET /admin/status":
		if physical {
			return gateWant{status: 200, body: `{"ok":"yes"}`}
		}
		return notFound
	}
	parts := strings.Split(path, "/")
	switch {
	case len(parts) == 3 && parts[1] == "tasks" && (in.method == "GET" || in.method == "DELETE") && len(parts[2]) == 36:
		if scoped {
			return gateWant{status: 403, body: e3("agent_scope_denied", "This access key is limited to its agent.")}
		}
		return gateWant{status: 404, body: e3("task_not_found", "No such task.")}
	case len(parts) == 4 && parts[1] == "agents" && parts[2] != "" && in.method == "POST" && (parts[3] == "run" || parts[3] == "dispatch"):
		return gateWant{status: 400, body: "Invalid request format"}
	case len(parts) == 3 && parts[1] == "agents" && parts[2] != "" && in.method == "GET":
		return modelAgent(h, parts[2], kind, owner)
	}
	return notFound
}

func modelAgent(h *host, id, kind string, owner bool) gateWant {
	for name, a := range map[string]agents.Agent{"agent": h.agent, "other": h.other} {
		if strings.EqualFold(id, a.ID) || strings.EqualFold(id, a.Address.String()) {
			if !owner && kind != name {
				return gateWant{status: 403, body: e3("agent_scope_denied", "This access key is limited to its agent.")}
			}
			raw, err := json.Marshal(a.ID)
			if err != nil {
				panic(err)
			}
			return gateWant{status: 200, holds: []string{string(raw), a.Address.Lower()}}
		}
	}
	if known := len(id) == 36 || len(id) == 42 && strings.HasPrefix(id, "0x"); known && !owner {
		return gateWant{status: 403, body: e3("agent_scope_denied", "This access key is limited to its agent.")}
	} else if known {
		return gateWant{status: 404, body: e3("agent_not_found", "No such agent on this host.")}
	}
	return gateWant{status: 400, body: e3("invalid_agent_id", "The agent id is neither a UUID nor an address.")}
}
