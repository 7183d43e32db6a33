package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"osaurus/engine"
	"osaurus/engine/accesskey"
	"osaurus/engine/discovery"
	"osaurus/engine/pairing"
	"osaurus/engine/runner"
	"osaurus/engine/server"
	"osaurus/engine/settings"
)

// ErrNoHost says that nothing answers on the socket.
var ErrNoHost = errors.New("no host is running for this home")

// Client speaks to one host. It is safe for concurrent use.
type Client struct{ http http.Client }

// NewClient returns a client for a socket. Nothing is dialled yet.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err != nil {
			return nil, ErrNoHost
		}
		return c, nil
	}
	return &Client{http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) send(ctx context.Context, op string, in any) (*http.Response, error) {
	raw, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://control/"+op, bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	return c.do(req)
}

// do sends a request and turns a refusal into an Error.
func (c *Client) do(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		if ended := req.Context().Err(); ended != nil {
			return nil, ended // and not its cause, which names a signal
		}
		if errors.Is(err, ErrNoHost) {
			return nil, ErrNoHost
		}
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }() // only read
	var e Error
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&e); err != nil {
		return nil, fmt.Errorf("the host answered %d", resp.StatusCode)
	}
	return nil, &e
}

// call sends one request and reads one reply.
func call[Out any](ctx context.Context, c *Client, op string, in any) (Out, error) {
	var out Out
	resp, err := c.send(ctx, op, in)
	if err != nil {
		return out, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	return out, json.NewDecoder(resp.Body).Decode(&out)
}

// stream sends one request and hands every line of the reply to each.
func stream[Out any](ctx context.Context, c *Client, op string, in any, each func(Out) error) error {
	resp, err := c.send(ctx, op, in)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	dec := json.NewDecoder(bufio.NewReader(resp.Body))
	for {
		var out Out
		if err := dec.Decode(&out); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			if ended := ctx.Err(); ended != nil {
				return ended
			}
			return err
		}
		if err := each(out); err != nil {
			return err
		}
	}
}

// Status returns what the host knows of itself.
func (c *Client) Status(ctx context.Context) (engine.Status, error) {
	return call[engine.Status](ctx, c, "status", Empty{})
}

// Diagnose returns everything doctor shows: the status, and what is found by
// asking.
func (c *Client) Diagnose(ctx context.Context) (engine.Status, error) {
	return call[engine.Status](ctx, c, "doctor", Empty{})
}

// Stop ends the host.
func (c *Client) Stop(ctx context.Context) error {
	_, err := call[Empty](ctx, c, "stop", Empty{})
	return err
}

// Identity shows the identity; withPairing also its address as a connector,
// which may ask the owner.
func (c *Client) Identity(ctx context.Context, withPairing bool) (Identity, error) {
	op := "identity/show"
	if withPairing {
		op = "identity/pairing"
	}
	return call[Identity](ctx, c, op, Empty{})
}

// CreateIdentity mints the master and returns its phrase once.
func (c *Client) CreateIdentity(ctx context.Context) (NewIdentity, error) {
	return call[NewIdentity](ctx, c, "identity/create", Empty{})
}

// Phrase returns the phrase again until it was acknowledged.
func (c *Client) Phrase(ctx context.Context) (NewIdentity, error) {
	return call[NewIdentity](ctx, c, "identity/phrase", Empty{})
}

// Acknowledge records that the phrase is saved.
func (c *Client) Acknowledge(ctx context.Context) error {
	_, err := call[Empty](ctx, c, "identity/acknowledge", Empty{})
	return err
}

// RestoreIdentity installs the master of a phrase.
func (c *Client) RestoreIdentity(ctx context.Context, r Restore) (Identity, error) {
	return call[Identity](ctx, c, "identity/restore", r)
}

// ConfirmReplacement drops the kept copy of a replaced master.
func (c *Client) ConfirmReplacement(ctx context.Context) error {
	_, err := call[Empty](ctx, c, "identity/confirm", Empty{})
	return err
}

// UndoReplacement brings the replaced master back.
func (c *Client) UndoReplacement(ctx context.Context) (Identity, error) {
	return call[Identity](ctx, c, "identity/undo", Empty{})
}

// MintToken signs a request token.
func (c *Client) MintToken(ctx context.Context, m MintToken) (RequestToken, error) {
	return call[RequestToken](ctx, c, "identity/token/mint", m)
}

// VerifyToken accepts a request token for this host, once.
func (c *Client) VerifyToken(ctx context.Context, t RequestToken) (RequestToken, error) {
	return call[RequestToken](ctx, c, "identity/token/verify", t)
}

// ResetIdentity deletes the identity.
func (c *Client) ResetIdentity(ctx context.Context) error {
	_, err := call[Empty](ctx, c, "identity/reset", Empty{})
	return err
}

// Drift checks agents and keys against the master.
func (c *Client) Drift(ctx context.Context) (Drift, error) {
	return call[Drift](ctx, c, "identity/drift", Empty{})
}

// Health returns what the last check found, without asking the owner.
func (c *Client) Health(ctx context.Context) (Drift, error) {
	return call[Drift](ctx, c, "identity/health", Empty{})
}

// Repair moves mismatched agents forward and revokes stale keys, if they are
// still those of shown.
func (c *Client) Repair(ctx context.Context, shown Drift) (Repaired, error) {
	return call[Repaired](ctx, c, "identity/repair", shown)
}

// SetPassphrase seals the keystore, or unseals it when p is empty.
func (c *Client) SetPassphrase(ctx context.Context, p string) error {
	_, err := call[Empty](ctx, c, "keystore/passphrase", Passphrase{p})
	return err
}

// Agents lists the agents of this host.
func (c *Client) Agents(ctx context.Context) ([]Agent, error) {
	return call[[]Agent](ctx, c, "agents/list", Empty{})
}

// CreateAgent makes an agent and gives it an address.
func (c *Client) CreateAgent(ctx context.Context, e EditAgent) (Agent, error) {
	return call[Agent](ctx, c, "agents/create", e)
}

// EditAgent changes an agent.
func (c *Client) EditAgent(ctx context.Context, e EditAgent) (Agent, error) {
	return call[Agent](ctx, c, "agents/edit", e)
}

// AgentAction runs assign, rotate, revoke or delete on an agent.
func (c *Client) AgentAction(ctx context.Context, action, id string) (Agent, error) {
	return call[Agent](ctx, c, "agents/"+action, ID{id})
}

// Keys lists the access keys.
func (c *Client) Keys(ctx context.Context) ([]accesskey.Metadata, error) {
	return call[[]accesskey.Metadata](ctx, c, "keys/list", Empty{})
}

// MintKey returns a new access key once.
func (c *Client) MintKey(ctx context.Context, m MintKey) (NewKey, error) {
	return call[NewKey](ctx, c, "keys/mint", m)
}

// KeyAction runs revoke or delete on a key.
func (c *Client) KeyAction(ctx context.Context, action, id string) error {
	_, err := call[Empty](ctx, c, "keys/"+action, ID{id})
	return err
}

// RevokeAllKeys ends every key that an address has issued up to now.
func (c *Client) RevokeAllKeys(ctx context.Context, issuer string) (RevokedAll, error) {
	return call[RevokedAll](ctx, c, "keys/revoke-all", RevokeAll{issuer})
}

// RefuseKeysBefore ends every key that was issued before a moment.
func (c *Client) RefuseKeysBefore(ctx context.Context, t time.Time) error {
	_, err := call[Empty](ctx, c, "keys/refuse-before", RefuseBefore{t})
	return err
}

// Whitelist lists the trusted issuers.
func (c *Client) Whitelist(ctx context.Context) ([]accesskey.Trusted, error) {
	return call[[]accesskey.Trusted](ctx, c, "keys/whitelist", Empty{})
}

// Trust adds an issuer, Distrust removes one.
func (c *Client) Trust(ctx context.Context, t Trust) error {
	_, err := call[Empty](ctx, c, "keys/trust", t)
	return err
}

// Distrust removes an issuer.
func (c *Client) Distrust(ctx context.Context, t Trust) error {
	_, err := call[Empty](ctx, c, "keys/distrust", t)
	return err
}

// Discover reports agents of other hosts until ctx ends.
func (c *Client) Discover(ctx context.Context, each func(discovery.Event) error) error {
	return stream(ctx, c, "discover", Empty{}, each)
}

// Pair asks another host for access to an agent.
func (c *Client) Pair(ctx context.Context, p Pair) (pairing.Peer, error) {
	return call[pairing.Peer](ctx, c, "pair", p)
}

// Peers lists the paired peers.
func (c *Client) Peers(ctx context.Context) ([]pairing.Peer, error) {
	return call[[]pairing.Peer](ctx, c, "peers/list", Empty{})
}

// ForgetPeer removes a peer and its key.
func (c *Client) ForgetPeer(ctx context.Context, peer string) error {
	_, err := call[Empty](ctx, c, "peers/forget", ID{peer})
	return err
}

// RenamePeer gives a peer another name.
func (c *Client) RenamePeer(ctx context.Context, r Rename) error {
	_, err := call[Empty](ctx, c, "peers/rename", r)
	return err
}

// Run streams an agent's answer.
func (c *Client) Run(ctx context.Context, r Run, each func(RunEvent) error) error {
	return stream(ctx, c, "run", r, each)
}

// Dispatch starts a task.
func (c *Client) Dispatch(ctx context.Context, r Run) (runner.Task, error) {
	return call[runner.Task](ctx, c, "tasks/dispatch", r)
}

// Task returns a task.
func (c *Client) Task(ctx context.Context, r Run) (runner.Task, error) {
	return call[runner.Task](ctx, c, "tasks/show", r)
}

// CancelTask stops a task.
func (c *Client) CancelTask(ctx context.Context, r Run) error {
	_, err := call[Empty](ctx, c, "tasks/cancel", r)
	return err
}

// Approvals returns what waits for the owner.
func (c *Client) Approvals(ctx context.Context) (Approvals, error) {
	return call[Approvals](ctx, c, "approvals/list", Empty{})
}

// WatchApprovals attaches an approver: while it runs, requests are asked.
func (c *Client) WatchApprovals(ctx context.Context, each func(Approvals) error) error {
	return stream(ctx, c, "approvals/watch", Empty{}, each)
}

// Answer resolves a prompt.
func (c *Client) Answer(ctx context.Context, a Answer) error {
	_, err := call[Empty](ctx, c, "approvals/answer", a)
	return err
}

// Provider shows the confirmed provider.
func (c *Client) Provider(ctx context.Context) (Provider, error) {
	return call[Provider](ctx, c, "provider/show", Empty{})
}

// ProbeProviders looks for a local provider to offer.
func (c *Client) ProbeProviders(ctx context.Context) (Provider, error) {
	return call[Provider](ctx, c, "provider/probe", Empty{})
}

// UseProvider confirms a provider; an empty one clears it.
func (c *Client) UseProvider(ctx context.Context, p Provider) error {
	_, err := call[Empty](ctx, c, "provider/use", p)
	return err
}

// Settings returns the server's settings.
func (c *Client) Settings(ctx context.Context) (settings.Server, error) {
	return call[settings.Server](ctx, c, "settings/show", Empty{})
}

// SetSettings saves the server's settings.
func (c *Client) SetSettings(ctx context.Context, s settings.Server) error {
	_, err := call[Empty](ctx, c, "settings/set", s)
	return err
}

// Log streams the lines of the security log.
func (c *Client) Log(ctx context.Context, each func(json.RawMessage) error) error {
	return stream(ctx, c, "log/show", Empty{}, each)
}

// VerifyLog checks the security log.
func (c *Client) VerifyLog(ctx context.Context) (LogHead, error) {
	return call[LogHead](ctx, c, "log/verify", Empty{})
}

// Requests returns the last requests.
func (c *Client) Requests(ctx context.Context) ([]server.Entry, error) {
	return call[[]server.Entry](ctx, c, "requests", Empty{})
}
