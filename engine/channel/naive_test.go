package channel_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/cloudflare/circl/kem/mlkem/mlkem768"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/sha3"
)

// The second implementation: PROTOCOL.md written down once more, as plainly as
// possible, with nothing of the package under test. It cares for neither speed
// nor attackers.

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func must2[T, U any](t T, u U, err error) (T, U) {
	if err != nil {
		panic(err)
	}
	return t, u
}

func unhex(s string) []byte { return must(hex.DecodeString(s)) }

// dialect is how a peer may write what others have to read.
type dialect struct {
	padded, indented, extra, hybrid bool
}

func (d dialect) b64(b []byte) string {
	if d.padded {
		return base64.URLEncoding.EncodeToString(b)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func unb64(s string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
}

func (d dialect) json(v map[string]any) []byte {
	if d.extra {
		v["x"] = map[string]any{"y": []any{1, "z", nil}}
	}
	if d.indented {
		return must(json.MarshalIndent(v, "", "  "))
	}
	return must(json.Marshal(v))
}

func keccak(parts ...[]byte) []byte {
	h := sha3.NewLegacyKeccak256()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

func handshakeDigest(transcript string) []byte {
	return keccak([]byte("\x19Osaurus Secure Channel:\n"+fmt.Sprint(len(transcript))), []byte(transcript))
}

func naiveAddress(pub *secp256k1.PublicKey) string {
	return "0x" + hex.EncodeToString(keccak(pub.SerializeUncompressed()[1:])[12:])
}

func naiveSign(key []byte, transcript string) string {
	c := ecdsa.SignCompact(secp256k1.PrivKeyFromBytes(key), handshakeDigest(transcript), false)
	return "0x" + hex.EncodeToString(append(c[1:], c[0]))
}

func naiveRecover(transcript, sig string) (string, error) {
	raw, err := hex.DecodeString(strings.TrimPrefix(sig, "0x"))
	if err != nil || len(raw) != 65 {
		return "", errors.New("bad signature")
	}
	pub, _, err := ecdsa.RecoverCompact(append([]byte{raw[64]}, raw[:64]...), handshakeDigest(transcript))
	if err != nil {
		return "", err
	}
	return naiveAddress(pub), nil
}

func hkdfSHA256(ikm, salt []byte, info string) []byte {
	mac := func(key, msg []byte) []byte {
		h := hmac.New(sha256.New, key)
		h.Write(msg)
		return h.Sum(nil)
	}
	if len(salt) == 0 {
		salt = make([]byte, 32)
	}
	return mac(mac(salt, ikm), append([]byte(info), 1)) // 32 bytes are one block
}

func seal(key []byte, seq uint64, aad string, plaintext []byte) []byte {
	nonce := binary.BigEndian.AppendUint64(make([]byte, 4), seq)
	return must(chacha20poly1305.New(key)).Seal(nil, nonce, plaintext, []byte(aad))
}

func unseal(key []byte, seq uint64, aad string, ct []byte) ([]byte, error) {
	nonce := binary.BigEndian.AppendUint64(make([]byte, 4), seq)
	return must(chacha20poly1305.New(key)).Open(nil, nonce, ct, []byte(aad))
}

// naiveSession is the outcome of a handshake.
type naiveSession struct {
	sid      string
	c2s, s2c []byte
	seq      uint64
	seen     map[uint64]bool
}

func naiveKeys(shared []byte, transcript, sid string) *naiveSession {
	salt := sha256.Sum256([]byte(transcript))
	return &naiveSession{
		sid:  sid,
		c2s:  hkdfSHA256(shared, salt[:], "osaurus-sc1:c2s"),
		s2c:  hkdfSHA256(shared, salt[:], "osaurus-sc1:s2c"),
		seen: map[uint64]bool{},
	}
}

func (s *naiveSession) requestAAD(seq uint64) string {
	return fmt.Sprintf("osaurus-sc1:req:%s:%d", s.sid, seq)
}

func (s *naiveSession) replyKey(request uint64) []byte {
	return hkdfSHA256(s.s2c, nil, fmt.Sprintf("osaurus-sc1:respkey:%d", request))
}

func (s *naiveSession) frame(d dialect, request, seq uint64, fin bool, plaintext []byte) []byte {
	f := map[string]any{"seq": seq, "ct": d.b64(seal(s.replyKey(request), seq, s.replyAAD(request, seq, fin), plaintext))}
	if fin || d.extra {
		f["fin"] = fin
	}
	return d.json(f)
}

func (s *naiveSession) replyAAD(request, seq uint64, fin bool) string {
	bit := 0
	if fin {
		bit = 1
	}
	return fmt.Sprintf("osaurus-sc1:resp:%s:%d:%d:%d", s.sid, request, seq, bit)
}

type naiveFrame struct {
	Seq uint64 `json:"seq"`
	CT  string `json:"ct"`
	Fin bool   `json:"fin"`
}

func (s *naiveSession) openFrame(data []byte, request, want uint64) (plaintext []byte, fin bool, err error) {
	var f naiveFrame
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, false, err
	}
	if f.Seq != want {
		return nil, false, errors.New("out of order")
	}
	ct, err := unb64(f.CT)
	if err != nil {
		return nil, false, err
	}
	plaintext, err = unseal(s.replyKey(request), f.Seq, s.replyAAD(request, f.Seq, f.Fin), ct)
	return plaintext, f.Fin, err
}

type naiveInner struct {
	Method        string            `json:"method"`
	Path          string            `json:"path"`
	Authorization string            `json:"authorization,omitempty"`
	Accept        string            `json:"accept,omitempty"`
	ContentType   string            `json:"contentType,omitempty"`
	Headers       map[string]string `json:"headers,omitempty"`
	Body          string            `json:"body,omitempty"`
}

type naiveReply struct {
	Status      int    `json:"status"`
	ContentType string `json:"contentType,omitempty"`
	Body        string `json:"body,omitempty"`
}

// naiveClient is an http.RoundTripper with one session.
type naiveClient struct {
	url, agent string
	dialect    dialect
	mu         sync.Mutex
	session    *naiveSession
}

func (c *naiveClient) post(ctx context.Context, path string, body []byte) (*http.Response, error) {
	req := must(http.NewRequestWithContext(ctx, "POST", c.url+path, bytes.NewReader(body)))
	return http.DefaultTransport.RoundTrip(req)
}

func (c *naiveClient) handshake(ctx context.Context) error {
	key := must(ecdh.X25519().GenerateKey(rand.Reader))
	nonce := make([]byte, 16)
	must(rand.Read(nonce))
	encPub, nC := c.dialect.b64(key.PublicKey().Bytes()), c.dialect.b64(nonce)
	members := map[string]any{"v": 1, "agentAddress": c.agent, "encPub": encPub, "nonce": nC}
	var kem *mlkem768.PrivateKey
	pqPub := ""
	if c.dialect.hybrid {
		var pub *mlkem768.PublicKey
		pub, kem = must2(mlkem768.GenerateKeyPair(rand.Reader))
		pqPub = c.dialect.b64(must(pub.MarshalBinary()))
		members["pqPub"] = pqPub
	}
	hello := c.dialect.json(members)
	resp, err := c.post(ctx, "/secure/session", hello)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var a struct {
		V         int    `json:"v"`
		SID       string `json:"sid"`
		EncPub    string `json:"encPub"`
		ExpiresAt int64  `json:"expiresAt"`
		PQCt      string `json:"pqCt"`
		Signature string `json:"signature"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil || resp.StatusCode != 200 {
		return fmt.Errorf("handshake: %d %w", resp.StatusCode, err)
	}
	transcript := fmt.Sprintf("osaurus-sc1|v=1|aA=%s|eC=%s|nC=%s|sid=%s|eS=%s|exp=%d", c.agent, encPub, nC, a.SID, a.EncPub, a.ExpiresAt)
	if kem != nil && a.PQCt != "" {
		transcript += "|pP=" + pqPub + "|pC=" + a.PQCt
	}
	if who, err := naiveRecover(transcript, a.Signature); err != nil || who != c.agent {
		return fmt.Errorf("handshake signed by %q: %w", who, err)
	}
	shared := must(key.ECDH(must(ecdh.X25519().NewPublicKey(must(unb64(a.EncPub))))))
	if kem != nil && a.PQCt != "" {
		shared = append(shared, must(mlkem768.Scheme().Decapsulate(kem, must(unb64(a.PQCt))))...)
	}
	c.session = naiveKeys(shared, transcript, a.SID)
	return nil
}

// envelope seals an inner request under the next sequence number.
func (c *naiveClient) envelope(in naiveInner) (body []byte, seq uint64) {
	c.mu.Lock()
	c.session.seq++
	seq = c.session.seq
	c.mu.Unlock()
	ct := seal(c.session.c2s, seq, c.session.requestAAD(seq), must(json.Marshal(in)))
	return c.dialect.json(map[string]any{"v": 1, "sid": c.session.sid, "seq": seq, "ct": c.dialect.b64(ct)}), seq
}

func (c *naiveClient) RoundTrip(req *http.Request) (*http.Response, error) {
	c.mu.Lock()
	if c.session == nil {
		if err := c.handshake(req.Context()); err != nil {
			c.mu.Unlock()
			return nil, err
		}
	}
	c.mu.Unlock()
	in := naiveInner{
		Method: req.Method, Path: req.URL.RequestURI(), Authorization: req.Header.Get("Authorization"),
		Accept: req.Header.Get("Accept"), ContentType: req.Header.Get("Content-Type"), Headers: map[string]string{},
	}
	for name := range req.Header {
		if name != "Authorization" && name != "Accept" && name != "Content-Type" {
			in.Headers[name] = req.Header.Get(name)
		}
	}
	if req.Body != nil {
		in.Body = c.dialect.b64(must(io.ReadAll(req.Body)))
		req.Body.Close()
	}
	body, seq := c.envelope(in)
	outer, err := c.post(req.Context(), "/secure/call", body)
	if err != nil {
		return nil, err
	}
	if outer.StatusCode != 200 {
		return outer, nil // this client shows what it got
	}
	if strings.HasPrefix(outer.Header.Get("Content-Type"), "text/event-stream") {
		return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/event-stream"}}, Request: req,
			Body: &naiveBody{outer.Body, bufio.NewReader(outer.Body), c.session, seq, 0, nil, false}}, nil
	}
	defer outer.Body.Close()
	plaintext, fin, err := c.session.openFrame(must(io.ReadAll(outer.Body)), seq, 0)
	if err != nil || !fin {
		return nil, fmt.Errorf("buffered answer: fin %v: %w", fin, err)
	}
	var r naiveReply
	if err := json.Unmarshal(plaintext, &r); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: r.Status, Header: http.Header{"Content-Type": {r.ContentType}}, Request: req,
		Body: io.NopCloser(bytes.NewReader(must(unb64(r.Body))))}, nil
}

// naiveBody opens a stream.
type naiveBody struct {
	io.Closer
	in      *bufio.Reader
	session *naiveSession
	request uint64
	next    uint64
	rest    []byte
	fin     bool
}

func (b *naiveBody) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		line, err := b.in.ReadBytes('\n')
		if errors.Is(err, io.EOF) && b.fin {
			return 0, io.EOF
		}
		if err != nil {
			return 0, fmt.Errorf("stream without fin: %w", err)
		}
		data, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("data: "))
		if !ok {
			continue
		}
		if b.fin {
			return 0, errors.New("frame after fin")
		}
		if b.rest, b.fin, err = b.session.openFrame(data, b.request, b.next); err != nil {
			return 0, err
		}
		b.next++
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// naiveServer answers /secure/* around next.
type naiveServer struct {
	key      []byte // the agent's
	next     http.Handler
	dialect  dialect
	mu       sync.Mutex
	sessions map[string]*naiveSession
}

func newNaiveServer(key []byte, d dialect, next http.Handler) *naiveServer {
	return &naiveServer{key: key, dialect: d, next: next, sessions: map[string]*naiveSession{}}
}

func (s *naiveServer) agent() string {
	return naiveAddress(secp256k1.PrivKeyFromBytes(s.key).PubKey())
}

func (s *naiveServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/secure/session":
		s.serveSession(w, r)
	case "/secure/call":
		s.serveCall(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (s *naiveServer) serveSession(w http.ResponseWriter, r *http.Request) {
	var h struct{ AgentAddress, EncPub, Nonce, PQPub string }
	if err := json.NewDecoder(r.Body).Decode(&h); err != nil || h.AgentAddress != s.agent() {
		http.Error(w, `{"error":"Unknown agent address"}`, 404)
		return
	}
	key := must(ecdh.X25519().GenerateKey(rand.Reader))
	raw := make([]byte, 16)
	must(rand.Read(raw))
	sid, encPub, exp := s.dialect.b64(raw), s.dialect.b64(key.PublicKey().Bytes()), time.Now().Unix()+3600
	transcript := fmt.Sprintf("osaurus-sc1|v=1|aA=%s|eC=%s|nC=%s|sid=%s|eS=%s|exp=%d", h.AgentAddress, h.EncPub, h.Nonce, sid, encPub, exp)
	shared := must(key.ECDH(must(ecdh.X25519().NewPublicKey(must(unb64(h.EncPub))))))
	members := map[string]any{"v": 1, "sid": sid, "encPub": encPub, "expiresAt": exp}
	if s.dialect.hybrid && h.PQPub != "" {
		ct, quantum := must2(mlkem768.Scheme().Encapsulate(must(mlkem768.Scheme().UnmarshalBinaryPublicKey(must(unb64(h.PQPub))))))
		pqCt := s.dialect.b64(ct)
		members["pqCt"] = pqCt
		transcript += "|pP=" + h.PQPub + "|pC=" + pqCt
		shared = append(shared, quantum...)
	}
	members["signature"] = naiveSign(s.key, transcript)
	s.mu.Lock()
	s.sessions[sid] = naiveKeys(shared, transcript, sid)
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.Write(s.dialect.json(members))
}

func (s *naiveServer) serveCall(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, code string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		w.Write(must(json.Marshal(map[string]any{"error": map[string]string{"code": code, "message": code, "type": "secure_channel_error"}})))
	}
	var e struct {
		SID string `json:"sid"`
		Seq uint64 `json:"seq"`
		CT  string `json:"ct"`
	}
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
		refuse(400, "secure_malformed")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	session := s.sessions[e.SID]
	if session == nil {
		refuse(401, "secure_session_unknown")
		return
	}
	plaintext, err := unseal(session.c2s, e.Seq, session.requestAAD(e.Seq), must(unb64(e.CT)))
	if err != nil {
		refuse(400, "secure_decrypt_failed")
		return
	}
	if session.seen[e.Seq] {
		refuse(409, "secure_replay")
		return
	}
	session.seen[e.Seq] = true
	var in naiveInner
	if err := json.Unmarshal(plaintext, &in); err != nil {
		refuse(400, "secure_malformed")
		return
	}
	s.answer(w, r, session, e.Seq, in)
}

// answer runs the inner request against a recorder and seals the outcome; a
// stream becomes one frame per line.
func (s *naiveServer) answer(w http.ResponseWriter, r *http.Request, session *naiveSession, seq uint64, in naiveInner) {
	inner := httptest.NewRequestWithContext(r.Context(), in.Method, in.Path, bytes.NewReader(must(unb64(in.Body))))
	for name, value := range in.Headers {
		inner.Header.Set(name, value)
	}
	for name, value := range map[string]string{"Authorization": in.Authorization, "Accept": in.Accept, "Content-Type": in.ContentType} {
		if value != "" {
			inner.Header.Set(name, value)
		}
	}
	rec := httptest.NewRecorder()
	s.next.ServeHTTP(rec, inner)
	w.Header().Set("X-Osaurus-Secure-Channel", "1")
	if rec.Header().Get("Content-Type") == "text/event-stream" {
		w.Header().Set("Content-Type", "text/event-stream")
		n := uint64(0)
		event := func(fin bool, plaintext []byte) {
			// One line each, so never indented.
			frame := session.frame(dialect{padded: s.dialect.padded, extra: s.dialect.extra}, seq, n, fin, plaintext)
			fmt.Fprintf(w, "data: %s\n\n", frame)
			n++
		}
		for line := range bytes.Lines(rec.Body.Bytes()) {
			event(false, line)
		}
		event(true, nil)
		return
	}
	reply := naiveReply{Status: rec.Code, ContentType: rec.Header().Get("Content-Type"), Body: s.dialect.b64(rec.Body.Bytes())}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Write(session.frame(s.dialect, seq, 0, true, must(json.Marshal(reply))))
}
