package channel

import (
	"strconv"

	"github.com/cloudflare/circl/dh/x25519"
	"github.com/go-json-experiment/json/jsontext"

	"osaurus/engine/address"
	"osaurus/engine/fault"
	"osaurus/engine/internal/base64url"
	"osaurus/engine/signature"
)

// hello opens the handshake, section 2. Base64 fields are kept as they stood
// on the wire, because the transcript takes them so.
//
//	{"agentAddress":"0x…","encPub":"<b64url 32>","nonce":"<b64url 16>",
//	 "pqPub":"<b64url 1184>","v":1}
//
// pqPub is optional, section 10.
type hello struct {
	agent         address.Address
	encPub, nonce string
	pqPub         string // "" without an offer
	pub           x25519.Key
}

func (h hello) append(dst []byte) []byte {
	dst = append(append(dst, `{"agentAddress":"`...), h.agent.Lower()...)
	dst = append(append(dst, `","encPub":"`...), h.encPub...)
	dst = append(append(dst, `","nonce":"`...), h.nonce...)
	if h.pqPub != "" {
		dst = append(append(dst, `","pqPub":"`...), h.pqPub...)
	}
	return append(dst, `","v":1}`...)
}

// helloText is a hello whose form was checked and nothing else.
type helloText struct {
	agent, encPub, nonce, pqPub, v string
	offers                         bool
}

func parseHelloFixed(data []byte) (t helloText, ok bool) {
	s := scanner{rest: data}
	s.expect(`{"agentAddress":"`)
	t.agent = string(s.text())
	s.expect(`,"encPub":"`)
	t.encPub = string(s.text())
	s.expect(`,"nonce":"`)
	t.nonce = string(s.text())
	if t.offers = s.has(`,"pqPub":"`); t.offers {
		t.pqPub = string(s.text())
	}
	s.expect(`,"v":1}`)
	t.v = version
	return t, s.done()
}

func parseHelloAnyOrder(data []byte) (t helloText, ok bool) {
	var got [3]bool
	err := parseObject(data, func(name string, d *jsontext.Decoder) (err error) {
		switch name {
		case "v":
			t.v, err = readInteger(d)
		case "agentAddress":
			got[0], err = setText(&t.agent, d)
		case "encPub":
			got[1], err = setText(&t.encPub, d)
		case "nonce":
			got[2], err = setText(&t.nonce, d)
		case "pqPub":
			t.offers, err = setText(&t.pqPub, d)
		default:
			err = skipValue(d)
		}
		return err
	})
	return t, err == nil && t.v != "" && got == [3]bool{true, true, true}
}

// parseHello checks form first, then version, then lengths. Errors:
// fault.HandshakeRequest, HandshakeVersion, HandshakeMalformed.
func parseHello(data []byte) (hello, error) {
	t, ok := parseHelloFixed(data)
	if !ok {
		t, ok = parseHelloAnyOrder(data)
	}
	if !ok {
		return hello{}, fault.HandshakeRequest
	}
	if t.v != version {
		return hello{}, fault.HandshakeVersion
	}
	h, err := hello{encPub: t.encPub, nonce: t.nonce, pqPub: t.pqPub}, error(nil)
	if h.agent, err = address.Parse(t.agent); err != nil {
		return hello{}, fault.HandshakeMalformed
	}
	if h.pub, err = parseKey(t.encPub); err != nil {
		return hello{}, fault.HandshakeMalformed
	}
	if _, err = base64url.DecodeExact(t.nonce, helloSize); err != nil {
		return hello{}, fault.HandshakeMalformed
	}
	if t.offers && t.pqPub == "" {
		return hello{}, fault.HandshakeMalformed
	}
	return h, nil
}

func parseKey(s string) (x25519.Key, error) {
	raw, err := base64url.DecodeExact(s, keySize)
	if err != nil {
		return x25519.Key{}, ErrMalformed
	}
	return x25519.Key(raw), nil
}

// answer closes the handshake, section 2:
//
//	{"encPub":"<b64url 32>","expiresAt":<unix s>,"pqCt":"<b64url 1088>",
//	 "sid":"<b64url 16>","signature":"0x<130 hex>","v":1}
//
// pqCt answers an offer, section 10.
type answer struct {
	encPub, sid string
	pqCt        string // its length is checked by who made an offer
	hybrid      bool   // pqCt is there
	expires     int64
	sig         signature.Signature
	pub         x25519.Key
}

func (a answer) append(dst []byte) []byte {
	dst = append(append(dst, `{"encPub":"`...), a.encPub...)
	dst = strconv.AppendInt(append(dst, `","expiresAt":`...), a.expires, 10)
	if a.hybrid {
		dst = append(append(append(dst, `,"pqCt":"`...), a.pqCt...), '"')
	}
	dst = append(append(dst, `,"sid":"`...), a.sid...)
	dst = append(append(dst, `","signature":"`...), a.sig.String()...)
	return append(dst, `","v":1}`...)
}

// answerText is an answer whose form was checked and nothing else.
type answerText struct {
	encPub, expires, pqCt, sid, sig, v string
	hybrid                             bool
}

func parseAnswerFixed(data []byte) (t answerText, ok bool) {
	s := scanner{rest: data}
	s.expect(`{"encPub":"`)
	t.encPub = string(s.text())
	s.expect(`,"expiresAt":`)
	t.expires = strconv.FormatUint(s.number(), 10)
	if t.hybrid = s.has(`,"pqCt":"`); t.hybrid {
		t.pqCt = string(s.text())
	}
	s.expect(`,"sid":"`)
	t.sid = string(s.text())
	s.expect(`,"signature":"`)
	t.sig = string(s.text())
	s.expect(`,"v":1}`)
	t.v = version
	return t, s.done()
}

func parseAnswerAnyOrder(data []byte) (t answerText, ok bool) {
	err := parseObject(data, func(name string, d *jsontext.Decoder) (err error) {
		switch name {
		case "v":
			t.v, err = readInteger(d)
		case "encPub":
			_, err = setText(&t.encPub, d)
		case "expiresAt":
			t.expires, err = readInteger(d)
		case "pqCt":
			t.hybrid, err = setText(&t.pqCt, d)
		case "sid":
			_, err = setText(&t.sid, d)
		case "signature":
			_, err = setText(&t.sig, d)
		default:
			err = skipValue(d)
		}
		return err
	})
	return t, err == nil && t.v != ""
}

// parseAnswer checks form, version and lengths. Errors: ErrMalformed,
// ErrVersion, ErrSignature.
func parseAnswer(data []byte) (answer, error) {
	t, ok := parseAnswerFixed(data)
	if !ok {
		t, ok = parseAnswerAnyOrder(data)
	}
	if !ok {
		return answer{}, ErrMalformed
	}
	if t.v != version {
		return answer{}, ErrVersion
	}
	a, err := answer{encPub: t.encPub, sid: t.sid, pqCt: t.pqCt, hybrid: t.hybrid}, error(nil)
	if a.pub, err = parseKey(a.encPub); err != nil {
		return answer{}, ErrMalformed
	}
	if _, err = base64url.DecodeExact(a.sid, sidSize); err != nil {
		return answer{}, ErrMalformed
	}
	if a.expires, err = strconv.ParseInt(t.expires, 10, 64); err != nil {
		return answer{}, ErrMalformed
	}
	if a.sig, err = signature.Parse(t.sig); err != nil {
		return answer{}, ErrSignature
	}
	return a, nil
}
