package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"osaurus/engine/secret"
)

// Where the guest's ends of the bridge are.
const (
	BridgeSocket = "/tmp/osaurus-bridge.sock"
	TokenDir     = "/run/osaurus" //nolint:gosec // a place, no credential
)

// Exit codes of osaurus-host.
const (
	ExitOK          = 0
	ExitRefused     = 1 // the bridge answered an error, or the call was interrupted
	ExitUsage       = 2
	ExitToken       = 3 // the token file is missing, empty or not ours alone
	ExitUnreachable = 4
)

// Bounds of what osaurus-host reads, in bytes.
const (
	maxTokenFile = 256
	maxAnswer    = 32 << 20
	maxRecipe    = 8 << 20
)

// answerTime is how long an answer may take; inference is slow.
const answerTime = 10 * time.Minute

// Command is one call of osaurus-host.
type Command struct {
	Args    []string // without the program's name
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Plugin  string // $OSAURUS_PLUGIN
	Dir     string // the working directory
	Socket  string // "" is BridgeSocket
	Token   string // the token file; "" is the user's own
	Getuid  func() int
	LookupU func(uid string) (*user.User, error)
}

// usage lists the commands, with which an unknown one is answered.
const usage = `Usage: osaurus-host secrets get <name>
       osaurus-host config get <key>
       osaurus-host config set <key> <value>
       osaurus-host inference chat -m <message>
       osaurus-host agent dispatch <agent_id> <task>
       osaurus-host agent memory query <text>
       osaurus-host agent memory store <text>
       osaurus-host events emit <type> [payload-json]
       osaurus-host plugin create < recipe.json
       osaurus-host log [level] <message>`

// usageError ends with ExitUsage.
type usageError string

func (e usageError) Error() string { return "Usage: osaurus-host " + string(e) }

// call is one request, and what of the answer is printed.
type call struct {
	method, path string
	body         any
	show         string // "" nothing, "*" the answer as it is, else a member
}

// Run does what the arguments say and returns the exit code.
func (c Command) Run(ctx context.Context) int {
	q, err := c.parse(ctx)
	if ctx.Err() != nil {
		return c.interrupted()
	}
	if err != nil {
		return c.fail(ExitUsage, err.Error())
	}
	token, err := c.token()
	if err != nil {
		return c.fail(ExitToken, "osaurus-host: "+err.Error())
	}
	defer token.Destroy()
	status, answer, err := c.send(ctx, q, token)
	switch {
	case err != nil && ctx.Err() != nil:
		return c.interrupted()
	case err != nil:
		return c.fail(ExitUnreachable, "osaurus-host: bridge unreachable: "+err.Error())
	case status != http.StatusOK:
		return c.fail(ExitRefused, fmt.Sprintf("osaurus-host: error %d: %s", status, message(answer)))
	}
	return c.show(q, answer)
}

func (c Command) interrupted() int { return c.fail(ExitRefused, "osaurus-host: interrupted") }

func (c Command) fail(code int, text string) int {
	_, _ = fmt.Fprintln(c.Stderr, text) // nobody can be told that stderr is gone
	return code
}

// message finds the text of an error body.
func message(answer []byte) string {
	var e struct{ Error string }
	if json.Unmarshal(answer, &e) != nil || e.Error == "" {
		return strings.TrimSpace(string(answer[:min(len(answer), 1000)]))
	}
	return e.Error
}

func (c Command) show(q call, answer []byte) int {
	switch q.show {
	case "":
		return ExitOK
	case "*":
		return c.print(string(bytes.TrimSpace(answer)))
	}
	var members map[string]any
	if json.Unmarshal(answer, &members) != nil {
		return c.fail(ExitRefused, "osaurus-host: the bridge's answer does not parse")
	}
	text, ok := members[q.show].(string)
	if !ok {
		return c.fail(ExitRefused, "osaurus-host: the bridge's answer has no "+q.show)
	}
	return c.print(text)
}

// print writes a result. One that was lost is no success.
func (c Command) print(text string) int {
	if _, err := fmt.Fprintln(c.Stdout, text); err != nil {
		return c.fail(ExitRefused, "osaurus-host: the result could not be written")
	}
	return ExitOK
}

// parse turns arguments into a request.
func (c Command) parse(ctx context.Context) (call, error) {
	a := append(append([]string{}, c.Args...), "", "")
	switch rest := c.Args[min(len(c.Args), 2):]; a[0] + " " + a[1] {
	case "secrets get":
		return c.named(rest, call{method: http.MethodGet, path: "/api/secrets/", show: "value"}, "secrets get <name>")
	case "config get":
		return c.named(rest, call{method: http.MethodGet, path: "/api/config/", show: "value"}, "config get <key>")
	case "config set":
		if len(rest) != 2 {
			return call{}, usageError("config set <key> <value>")
		}
		return c.named(rest[:1], call{method: http.MethodPost, path: "/api/config/", body: map[string]string{"value": rest[1]}}, "config set <key> <value>")
	case "inference chat":
		return chat(rest)
	case "agent dispatch":
		if len(rest) != 2 {
			return call{}, usageError("agent dispatch <agent_id> <task>")
		}
		return post("/api/agent/dispatch", map[string]string{"agent_id": rest[0], "task": rest[1]}, "*"), nil
	case "agent memory":
		return remember(rest)
	case "events emit":
		return emit(rest)
	case "plugin create":
		return c.create(ctx, rest)
	}
	if a[0] == "log" {
		return logLine(c.Args[1:])
	}
	return call{}, usageError(strings.TrimPrefix(usage, "Usage: osaurus-host "))
}

func post(path string, body any, show string) call {
	return call{http.MethodPost, path, body, show}
}

// named puts one name into the path. The bridge decodes nothing, so a name
// that would need it cannot be one.
func (c Command) named(args []string, q call, how string) (call, error) {
	if len(args) != 1 || args[0] == "" || url.PathEscape(args[0]) != args[0] {
		return call{}, usageError(how)
	}
	q.path += args[0]
	return q, nil
}

// chat takes the last -m; unknown flags are skipped.
func chat(args []string) (call, error) {
	text, found := "", false
	for i := 0; i < len(args); i++ {
		if args[i] == "-m" && i+1 < len(args) {
			i++
			text, found = args[i], true
		}
	}
	if !found {
		return call{}, usageError("inference chat -m <message>")
	}
	return post("/api/inference/chat", map[string]any{"messages": []any{map[string]string{"role": "user", "content": text}}}, "content"), nil
}

func remember(args []string) (call, error) {
	if len(args) == 2 {
		switch args[0] {
		case "query":
			return post("/api/agent/memory/query", map[string]string{"query": args[1]}, "*"), nil
		case "store":
			return post("/api/agent/memory/store", map[string]string{"content": args[1]}, "*"), nil
		}
	}
	return call{}, usageError("agent memory query|store <text>")
}

func emit(args []string) (call, error) {
	const how = usageError("events emit <type> [payload-json]")
	if len(args) != 1 && len(args) != 2 {
		return call{}, how
	}
	body := map[string]any{"type": args[0]}
	if len(args) == 2 {
		if !json.Valid([]byte(args[1])) {
			return call{}, how
		}
		body["payload"] = json.RawMessage(args[1])
	}
	return post("/api/events/emit", body, ""), nil
}

func (c Command) create(ctx context.Context, args []string) (call, error) {
	const how = usageError("plugin create < recipe.json")
	if len(args) != 0 {
		return call{}, how
	}
	raw, err := c.input(ctx)
	switch {
	case err != nil:
		return call{}, how
	case len(raw) > maxRecipe:
		return post("/api/plugin/create", tooLong(raw), "*"), nil
	case !json.Valid(raw):
		return call{}, how
	}
	return post("/api/plugin/create", json.RawMessage(raw), "*"), nil
}

// tooLong is a body that the bridge refuses for its length. It is sent as it
// is, so that the bridge says so.
type tooLong []byte

// input reads a recipe and a byte more, until ctx ends.
func (c Command) input(ctx context.Context) ([]byte, error) {
	type input struct {
		raw []byte
		err error
	}
	read := make(chan input, 1)
	go func() {
		raw, err := io.ReadAll(io.LimitReader(c.Stdin, maxRecipe+1))
		read <- input{raw, err}
	}()
	select {
	case in := <-read:
		return in.raw, in.err
	case <-ctx.Done(): // the program ends, and the reader with it
		return nil, ctx.Err()
	}
}

func logLine(args []string) (call, error) {
	switch len(args) {
	case 1:
		args = []string{"info", args[0]}
	case 2:
	default:
		return call{}, usageError("log [level] <message>")
	}
	return post("/api/log", map[string]string{"level": args[0], "message": args[1]}, ""), nil
}

// token reads the caller's token file, which must be a regular file of its
// own with mode 0600: anything else may hold another's token, or be read by
// others.
func (c Command) token() (secret.Bytes, error) {
	uid := c.Getuid()
	name := strconv.Itoa(uid)
	if u, err := c.LookupU(name); err == nil {
		name = u.Username
	}
	file := c.Token
	if file == "" {
		file = path.Join(TokenDir, name+".token")
	}
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("bridge token for %s missing (host has not provisioned this agent yet)", name)
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("bridge token for %s missing (host has not provisioned this agent yet)", name)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.Mode().IsRegular() || info.Mode().Perm() != 0o600 || int64(st.Uid) != int64(uid) {
		return secret.Bytes{}, fmt.Errorf("bridge token for %s is not a file of its owner alone", name)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxTokenFile))
	if err != nil || len(bytes.TrimSpace(raw)) == 0 {
		return secret.Bytes{}, fmt.Errorf("bridge token for %s is empty", name)
	}
	return secret.Take(bytes.TrimSpace(raw)), nil
}

var errAnswer = errors.New("the answer is too long")

// send makes the one request. The token goes into a header of it and nowhere
// else.
func (c Command) send(ctx context.Context, q call, token secret.Bytes) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	socket := c.Socket
	if socket == "" {
		socket = BridgeSocket
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, ExpectContinueTimeout: answerTime, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	raw, isLong := q.body.(tooLong)
	var body io.Reader
	if q.body != nil {
		if !isLong {
			var err error
			if raw, err = encode(q.body); err != nil {
				return 0, nil, err
			}
		}
		body = bytes.NewReader(raw)
	}
	r, err := http.NewRequestWithContext(ctx, q.method, "http://localhost"+q.path, body)
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Authorization", "Bearer "+string(token.Expose()))
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if isLong { // the refusal comes before the body does
		r.Header.Set("Expect", "100-continue")
	}
	if plugin := c.plugin(); plugin != "" {
		r.Header.Set("X-Osaurus-Plugin", plugin)
	}
	resp, err := client.Do(r)
	if err != nil {
		return 0, nil, reason(err)
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return 0, nil, reason(err)
	}
	if len(answer) > maxAnswer {
		return 0, nil, errAnswer
	}
	return resp.StatusCode, answer, nil
}

// reason drops what net/http wraps around a cause.
func reason(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// plugin is the name the caller goes by; "" when it can be no header.
func (c Command) plugin() string {
	name := c.Plugin
	if name == "" {
		name = filepath.Base(c.Dir)
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' }) || name == "/" || name == "." {
		return ""
	}
	return name
}
