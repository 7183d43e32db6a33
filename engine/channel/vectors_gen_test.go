package channel_test

import (
	"bytes"
	"crypto/ecdh"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata: vectors by the second implementation, recorded exchanges by the package")

// The fixed inputs of secure-channel.md, "Known answers".
const (
	clientPrivate = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
	serverPrivate = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
	knownClient   = "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"
	knownServer   = "3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08"
	knownNonce    = "AAECAwQFBgcICQoLDA0ODw"
	knownSID      = "8OHSw7Sllod4aVpLPC0eDw"
	knownExpiry   = 1800000000
	knownShared   = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
	knownC2S      = "8ae18d9e0eac6298177ce01ee029f931d854db0e500af8a669b11fe05e76e76d"
	knownS2C      = "6bb39415b0b87f4f57f1128d4b84554ef432802cf13cef63d90dd93bc719b325"
	knownSig      = "0xfba850b0a90fcbb1411c52687d31ab9d5da3cab347dc95627d22126514eb6185725284a542e1ddedabe9e1625d8838ea0599f3bff449b41f44107782992e74641c"
	knownRequest  = `{"method":"GET","path":"/channels/n8n/n8n-local/ping","accept":"application/json","headers":{"X-Osaurus-Channel-Signature":"sha256=b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad"}}`
	knownCT       = "NjWBFZDT8p8LILs-87hgoeyLUsq8l9Uud4dxwI4foJYa6miguekSlgiTBCsY4uj_pmSf3Zj0eGrcq8rcwcObaGyv6QyjzAMvomE5JH5tODQVeMOPFzrLQ1XGuz4xWXzbj4_l-_oJ_ld4k_IiPq0tE502rS5wJdYc7uGAr3dvlphu64viTWgqiFJe1zbw3cTyBWnP46SqPaYl80MeUESmtfAHWiHWp0X4Z-LA7wAewO-cyjfyE8j-StmcsDRBUyMVZbwGTm-LPpN9u97HeH6At69zVHiJDg"
	knownReplyKey = "97583ed81b1cb728820d8cb29ef9f7f20337ac356f161a979efebc0bb22aa8f8"
	knownReply    = `{"body":"e30","contentType":"application/json","status":200}`
	knownReplyCT  = "82OeZhyYKnyOKEtzUmsW4qhRgSIZ-q8eF376BfMbSjZ6ktVY_cmI5ExTG0ur2YYM9aLo7mMSBObRTnLx9u8RWRB94-ZIprVdYV07-Q"
	knownStreamCT = "zk1eZ3Ijaso7AZimyyDTu95yGuIz6l9ieNV2PT_wgQ"
	knownFinCT    = "jfjT7Fv4LNUkQ6wgAwryAQ"
	bobAddress    = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8"
)

var bobKey = unhex("59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d")

func transcriptOf(agent, eC, nC, sid, eS string, exp int64) string {
	return fmt.Sprintf("osaurus-sc1|v=1|aA=%s|eC=%s|nC=%s|sid=%s|eS=%s|exp=%d", agent, eC, nC, sid, eS, exp)
}

func knownSession() *naiveSession {
	return &naiveSession{sid: knownSID, c2s: unhex(knownC2S), s2c: unhex(knownS2C)}
}

// TestNaiveKnownAnswers holds the second implementation to the published
// values; vectors made by it then hold the package to them.
func TestNaiveKnownAnswers(t *testing.T) {
	t.Parallel()
	client := must(ecdh.X25519().NewPrivateKey(unhex(clientPrivate)))
	server := must(ecdh.X25519().NewPrivateKey(unhex(serverPrivate)))
	shared := must(client.ECDH(server.PublicKey()))
	transcript := transcriptOf(agentAddress, knownClient, knownNonce, knownSID, knownServer, knownExpiry)
	session := naiveKeys(shared, transcript, knownSID)
	var plain dialect
	ct := func(key []byte, seq uint64, aad, plaintext string) string {
		return plain.b64(seal(key, seq, aad, []byte(plaintext)))
	}
	for _, x := range []struct{ what, got, want string }{
		{"client encPub", plain.b64(client.PublicKey().Bytes()), knownClient},
		{"server encPub", plain.b64(server.PublicKey().Bytes()), knownServer},
		{"digest", hex.EncodeToString(handshakeDigest(transcript)), "ba9ac4aabffaa7598c6a83106bc2d073b1d617e7075d922e198da7d6a7cf4743"},
		{"signature", naiveSign(agentKey, transcript), knownSig},
		{"shared", hex.EncodeToString(shared), knownShared},
		{"c2s", hex.EncodeToString(session.c2s), knownC2S},
		{"s2c", hex.EncodeToString(session.s2c), knownS2C},
		{"request 1", ct(session.c2s, 1, session.requestAAD(1), knownRequest), knownCT},
		{"reply key 1", hex.EncodeToString(session.replyKey(1)), knownReplyKey},
		{"reply 1", ct(session.replyKey(1), 0, session.replyAAD(1, 0, true), knownReply), knownReplyCT},
		{"stream 2 frame 0", ct(session.replyKey(2), 0, session.replyAAD(2, 0, false), "data: {\"a\":1}\n\n"), knownStreamCT},
		{"stream 2 frame 1", ct(session.replyKey(2), 1, session.replyAAD(2, 1, true), ""), knownFinCT},
	} {
		if x.got != x.want {
			t.Errorf("%s = %s, want %s", x.what, x.got, x.want)
		}
	}
}

type vector map[string]any

// TestVectorsAreCurrent rewrites testdata/vectors with -update and otherwise
// checks that they are what the second implementation makes.
func TestVectorsAreCurrent(t *testing.T) {
	t.Parallel()
	for name, v := range map[string][]vector{
		"hello": helloVectors(), "handshake": handshakeVectors(), "hybrid": hybridVectors(), "calls": callVectors(),
		"replies": replyVectors(), "inner_requests": innerRequestVectors(), "inner_replies": innerReplyVectors(),
	} {
		path := filepath.Join("testdata", "vectors", name+".json")
		text := append(must(json.MarshalIndent(v, "", " ")), '\n')
		if *update {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != string(text) {
			t.Errorf("%s is not what -update writes: %v", path, err)
		}
	}
}

func helloVectors() []vector {
	const good = `{"agentAddress":"` + agentAddress + `","encPub":"` + knownClient + `","nonce":"` + knownNonce + `","v":1}`
	swap := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	var v []vector
	add := func(expect, name, hello string) {
		v = append(v, vector{"name": name, "expect": expect, "hello": hello})
	}
	add("success", "known answer", good)
	add("success", "other order, white space, unknown fields", " {\n \"v\" : 1, \"later\":{\"a\":[1,{}]}, \"nonce\":\""+knownNonce+"\",\"agentAddress\":\""+agentAddress+"\",\"encPub\":\""+knownClient+"\"}\n")
	add("success", "padding", swap(knownClient, knownClient+"="))
	add("success", "checksummed address", swap(agentAddress, "0x331565e19602986634610f4B33Ff7ad182860036"))
	add("success", "address without 0x", swap(agentAddress, agentAddress[2:]))
	add("invalid_request", "empty", "")
	add("invalid_request", "not JSON", "hello")
	add("invalid_request", "an array", "["+good+"]")
	add("invalid_request", "data after the object", good+"{}")
	add("invalid_request", "duplicate field", swap(`"v":1`, `"v":1,"v":1`))
	add("invalid_request", "duplicate unknown field", swap(`"v":1`, `"v":1,"x":0,"x":0`))
	add("invalid_request", "no version", swap(`,"v":1`, ""))
	add("invalid_request", "version is text", swap(`"v":1`, `"v":"1"`))
	add("invalid_request", "version with a fraction", swap(`"v":1`, `"v":1.0`))
	add("invalid_request", "no address", swap(`"agentAddress":"`+agentAddress+`",`, ""))
	add("invalid_request", "address is null", swap(`"`+agentAddress+`"`, "null"))
	add("invalid_request", "no encPub", swap(`"encPub":"`+knownClient+`",`, ""))
	add("invalid_request", "encPub is a number", swap(`"`+knownClient+`"`, "7"))
	add("invalid_request", "no nonce", swap(`"nonce":"`+knownNonce+`",`, ""))
	add("invalid_request", "nonce is an array", swap(`"`+knownNonce+`"`, "[]"))
	add("invalid_request", "names are case-sensitive", swap(`"nonce"`, `"Nonce"`))
	add("invalid_request", "nested 257 deep", swap(`"v":1`, `"v":1,"x":`+strings.Repeat("[", 256)+strings.Repeat("]", 256)))
	add("success", "nested 256 deep", swap(`"v":1`, `"v":1,"x":`+strings.Repeat("[", 255)+strings.Repeat("]", 255)))
	add("unsupported_version", "version 2", swap(`"v":1`, `"v":2`))
	add("unsupported_version", "version 0", swap(`"v":1`, `"v":0`))
	add("unsupported_version", "negative version", swap(`"v":1`, `"v":-1`))
	add("unsupported_version", "version beyond 64 bits", swap(`"v":1`, `"v":18446744073709551617`))
	add("unsupported_version", "version before lengths", `{"agentAddress":"","encPub":"","nonce":"","v":2}`)
	add("malformed", "short address", swap(agentAddress, agentAddress[:41]))
	add("malformed", "address is not hex", swap(agentAddress, "0x"+strings.Repeat("g", 40)))
	add("malformed", "empty address", swap(agentAddress, ""))
	add("malformed", "encPub of 31 bytes", swap(knownClient, knownClient[:42]))
	add("malformed", "encPub of 33 bytes", swap(knownClient, knownClient+"A"))
	add("malformed", "encPub with trailing bits", swap(knownClient, knownClient[:42]+"p"))
	add("malformed", "encPub in the standard alphabet", swap(knownClient, strings.ReplaceAll(knownClient, "_", "/")))
	add("malformed", "encPub with a line break", swap(knownClient, knownClient[:20]+`\n`+knownClient[20:]))
	add("malformed", "nonce of 15 bytes", swap(knownNonce, knownNonce[:20]))
	add("malformed", "nonce of 17 bytes", swap(knownNonce, knownNonce+"A"))
	offer := func(pqPub string) string { return swap(`,"v":1`, `,"pqPub":`+pqPub+`,"v":1`) }
	add("success", "a post-quantum offer", offer(`"`+knownPQPub()+`"`))
	add("success", "an offer in another order", `{"pqPub":"`+knownPQPub()+`=","v":1,"agentAddress":"`+agentAddress+`","encPub":"`+knownClient+`","nonce":"`+knownNonce+`"}`)
	add("invalid_request", "an offer that is a number", offer("7"))
	add("success", "an offer that is null is none", offer("null"))
	add("invalid_request", "two offers", offer(`"`+knownPQPub()+`","pqPub":"`+knownPQPub()+`"`))
	add("malformed", "an empty offer", offer(`""`))
	add("malformed", "an offer of 1183 bytes", offer(`"`+dialect{}.b64(make([]byte, 1183))+`"`))
	add("malformed", "an offer of 1185 bytes", offer(`"`+dialect{}.b64(make([]byte, 1185))+`"`))
	add("malformed", "an offer whose coefficients are not reduced", offer(`"`+dialect{}.b64(bytes.Repeat([]byte{0xff}, 1184))+`"`))
	for i, point := range lowOrder {
		add("malformed", fmt.Sprintf("low-order point %d", i), swap(knownClient, dialect{}.b64(unhex(point))))
	}
	return v
}

// lowOrder are the encodings that yield an all-zero secret: the points of
// order 1, 2, 4 and 8 of curve and twist, some not reduced, some with the high
// bit that X25519 ignores.
var lowOrder = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000080",
	"0100000000000000000000000000000000000000000000000000000000000080",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
}

func handshakeVectors() []vector {
	var v []vector
	type answer struct {
		encPub, sid string
		exp         int64
		key         []byte
	}
	good := answer{knownServer, knownSID, knownExpiry, agentKey}
	text := func(a answer) string {
		sig := naiveSign(a.key, transcriptOf(agentAddress, knownClient, knownNonce, a.sid, a.encPub, a.exp))
		return fmt.Sprintf(`{"encPub":%q,"expiresAt":%d,"sid":%q,"signature":%q,"v":1}`, a.encPub, a.exp, a.sid, sig)
	}
	add := func(expect, name, answer string, now int64) {
		v = append(v, vector{
			"name": name, "expect": expect, "client_private": clientPrivate, "nonce": knownNonce,
			"pinned": agentAddress, "now": now, "answer": answer,
		})
	}
	const now = knownExpiry - 3600
	with := func(change func(*answer)) string {
		a := good
		change(&a)
		return text(a)
	}
	swap := func(old, new string) string { return strings.Replace(text(good), old, new, 1) }
	add("success", "known answer", text(good), now)
	v[0]["transcript"] = transcriptOf(agentAddress, knownClient, knownNonce, knownSID, knownServer, knownExpiry)
	v[0]["server_private"], v[0]["sid"] = serverPrivate, knownSID
	v[0]["shared"], v[0]["c2s"], v[0]["s2c"], v[0]["reply_key_1"] = knownShared, knownC2S, knownS2C, knownReplyKey
	add("success", "unknown fields", swap(`"v":1`, `"v":1,"pqCt":"AA"`), now)
	add("success", "padding is part of the transcript", with(func(a *answer) { a.encPub += "="; a.sid += "==" }), now)
	add("success", "expires now", text(good), knownExpiry)
	add("success", "expires in 3700 s", text(good), knownExpiry-3700)
	add("malformed", "expired a second ago", text(good), knownExpiry+1)
	add("malformed", "expires in 3701 s", text(good), knownExpiry-3701)
	add("malformed", "expiry beyond 63 bits", swap("1800000000", "9223372036854775808"), now)
	add("malformed", "expiry with a fraction", swap("1800000000", "1800000000.5"), now)
	add("malformed", "negative expiry", with(func(a *answer) { a.exp = -1 }), now)
	add("malformed", "not JSON", "<html>", now)
	add("malformed", "empty object", "{}", now)
	add("malformed", "sid of 15 bytes", with(func(a *answer) { a.sid = a.sid[:20] }), now)
	add("malformed", "sid of 17 bytes", with(func(a *answer) { a.sid += "A" }), now)
	add("malformed", "encPub of 31 bytes", with(func(a *answer) { a.encPub = a.encPub[:42] }), now)
	add("malformed", "low-order encPub", with(func(a *answer) { a.encPub = dialect{}.b64(unhex(lowOrder[0])) }), now)
	add("unsupported_version", "version 2", swap(`"v":1`, `"v":2`), now)
	add("wrong_address", "signed by another key", with(func(a *answer) { a.key = bobKey }), now)
	add("wrong_address", "sid changed", swap(knownSID, "A"+knownSID[1:]), now)
	add("wrong_address", "encPub changed", swap(knownServer, "A"+knownServer[1:]), now)
	add("wrong_address", "expiry changed", swap("1800000000", "1800000001"), now)
	add("bad_signature", "too short", swap("641c\"", "64\""), now)
	add("bad_signature", "no signature", swap(`"signature"`, `"sig"`), now)
	add("bad_signature", "recovers no key", swap(knownSig, "0x"+strings.Repeat("00", 64)+"1b"), now)
	add("bad_signature", "recovery id 31", swap("641c\"", "641f\""), now)
	return v
}

// call makes one envelope with anything wrong that opts say.
func callEnvelope(seq uint64, plaintext string) map[string]any {
	s := knownSession()
	return map[string]any{"v": 1, "sid": knownSID, "seq": seq, "ct": dialect{}.b64(seal(s.c2s, seq, s.requestAAD(seq), []byte(plaintext)))}
}

func callVectors() []vector {
	var v []vector
	type call struct {
		Expect   string `json:"expect"`
		Envelope string `json:"envelope"`
	}
	add := func(name string, calls ...call) {
		v = append(v, vector{"name": name, "sid": knownSID, "c2s": knownC2S, "s2c": knownS2C, "calls": calls})
	}
	text := func(e map[string]any) string { return string(must(json.Marshal(e))) }
	with := func(field string, value any) string {
		e := callEnvelope(1, knownRequest)
		e[field] = value
		return text(e)
	}
	without := func(field string) string {
		e := callEnvelope(1, knownRequest)
		delete(e, field)
		return text(e)
	}
	get := func(seq uint64) string { return text(callEnvelope(seq, `{"method":"GET","path":"/"}`)) }
	good := text(callEnvelope(1, knownRequest))
	add("known answer", call{"success", good})
	add("replayed", call{"success", good}, call{"replay", good})
	add("out of order within the window", call{"success", get(8128)}, call{"success", get(1)}, call{"success", get(4000)}, call{"replay", get(1)})
	add("behind the window", call{"success", get(8129)}, call{"replay", get(1)}, call{"success", get(2)})
	add("largest number", call{"success", get(1<<64 - 1)}, call{"replay", get(1<<64 - 1)}, call{"success", get(1<<64 - 2)}, call{"replay", get(7)})
	add("sequence zero, before the cipher", call{"replay", with("seq", 0)})
	add("a refused envelope costs no number", call{"decrypt_failed", with("ct", dialect{}.b64(make([]byte, 64)))}, call{"success", good})
	add("tampered and replayed is not told apart", call{"success", good}, call{"decrypt_failed", with("ct", "A"+knownCT[1:])})
	add("another number", call{"decrypt_failed", with("seq", 2)})
	add("shorter than a tag", call{"decrypt_failed", with("ct", "AAAA")}, call{"decrypt_failed", with("ct", "")})
	add("unknown session", call{"unknown_session", with("sid", "AAAAAAAAAAAAAAAAAAAAAA")}, call{"unknown_session", with("sid", "bogus")}, call{"unknown_session", with("sid", "")})
	add("session before sequence", call{"unknown_session", strings.Replace(with("sid", "bogus"), `"seq":1`, `"seq":0`, 1)})
	add("decoding before session", call{"malformed", strings.Replace(with("sid", "bogus"), `"seq":1`, `"seq":-1`, 1)}, call{"malformed", strings.Replace(with("sid", "bogus"), knownCT, "*", 1)})
	add("padded sid and ciphertext", call{"success", with("sid", knownSID+"==")}, call{"replay", with("ct", knownCT+"==")})
	add("white space, order, unknown fields", call{"success", " {\"zz\":[{}], \"v\":1 ,\n\"seq\": 1,\t\"sid\":\"" + knownSID + "\",\"ct\":\"" + knownCT + "\"} \r\n"})
	add("escapes", call{"success", strings.Replace(good, "8OHS", `\u0038OHS`, 1)})
	for _, seq := range []string{"1.0", "1e0", "-1", `"1"`, "null", "true", "18446744073709551616", "01", "[1]"} {
		add("seq is "+seq, call{"malformed", strings.Replace(good, `"seq":1`, `"seq":`+seq, 1)})
	}
	for _, field := range []string{"v", "sid", "seq", "ct"} {
		add("no "+field, call{"malformed", without(field)})
	}
	add("version 2", call{"malformed", with("v", 2)})
	add("sid is a number", call{"malformed", with("sid", 7)})
	add("ct is null", call{"malformed", with("ct", nil)})
	add("ct with a line break", call{"malformed", with("ct", knownCT[:8]+"\n"+knownCT[8:])})
	add("ct in the standard alphabet", call{"malformed", with("ct", strings.ReplaceAll(knownCT, "-", "+"))}, call{"malformed", with("ct", strings.ReplaceAll(knownCT, "_", "/"))})
	add("ct with trailing bits", call{"malformed", with("ct", knownCT[:len(knownCT)-1]+"h")})
	add("duplicate field", call{"malformed", strings.Replace(good, `"v":1`, `"v":1,"v":1`, 1)})
	add("not JSON", call{"malformed", "GET /"}, call{"malformed", ""}, call{"malformed", "null"}, call{"malformed", good + good})
	add("inner request is not JSON", call{"malformed", text(callEnvelope(1, "hello"))})
	add("a malformed inner request has used its number", call{"malformed", text(callEnvelope(1, "{}"))}, call{"replay", good})
	return v
}

func replyVectors() []vector {
	s := knownSession()
	frame := func(request, seq uint64, fin bool, plaintext string) string {
		return string(s.frame(dialect{}, request, seq, fin, []byte(plaintext)))
	}
	var v []vector
	add := func(expect, name, mode string, request uint64, plaintext string, frames ...string) {
		v = append(v, vector{"name": name, "expect": expect, "mode": mode, "sid": knownSID, "s2c": knownS2C, "request": request, "plaintext": plaintext, "frames": frames})
	}
	one := frame(1, 0, true, knownReply)
	add("success", "known answer", "buffered", 1, knownReply, one)
	add("success", "empty plaintext", "buffered", 1, "", frame(1, 0, true, ""))
	add("success", "order, white space, unknown fields", "buffered", 1, knownReply, ` {"seq" :0,"fin":true, "x":{},"ct":"`+knownReplyCT+`"}`)
	add("truncated", "no fin", "buffered", 1, "", frame(1, 0, false, knownReply))
	add("reordered", "sequence 1", "buffered", 1, "", frame(1, 1, true, knownReply))
	add("decrypt_failed", "fin added", "buffered", 1, "", strings.Replace(frame(1, 0, false, knownReply), `"seq"`, `"fin":true,"seq"`, 1))
	add("decrypt_failed", "answer to another request", "buffered", 2, "", one)
	add("decrypt_failed", "tampered", "buffered", 1, "", strings.Replace(one, "82Oe", "82Of", 1))
	add("decrypt_failed", "shorter than a tag", "buffered", 1, "", `{"ct":"AAAA","fin":true,"seq":0}`)
	add("after_fin", "a second frame", "buffered", 1, knownReply, one, one)
	for _, x := range []struct{ name, frame string }{
		{"not JSON", "data"}, {"empty", ""}, {"no ct", `{"fin":true,"seq":0}`}, {"no seq", `{"ct":"` + knownReplyCT + `","fin":true}`},
		{"fin is a number", strings.Replace(one, "true", "1", 1)}, {"seq with a fraction", strings.Replace(one, `"seq":0`, `"seq":0.0`, 1)},
		{"negative seq", strings.Replace(one, `"seq":0`, `"seq":-0`, 1)}, {"line break in ct", strings.Replace(one, "82Oe", `82\nOe`, 1)},
		{"two frames in one", one + one}, {"an array", "[" + one + "]"}, {"duplicate fin", strings.Replace(one, `"fin":true`, `"fin":true,"fin":true`, 1)},
	} {
		add("malformed", x.name, "buffered", 1, "", x.frame)
	}
	a, b, fin := frame(2, 0, false, "data: {\"a\":1}\n\n"), frame(2, 1, false, "data: [DONE]\n\n"), frame(2, 2, true, "")
	text := "data: {\"a\":1}\n\ndata: [DONE]\n\n"
	add("success", "known answer", "stream", 2, "data: {\"a\":1}\n\n", a, frame(2, 1, true, ""))
	add("success", "two chunks", "stream", 2, text, a, b, fin)
	add("success", "nothing but the end", "stream", 2, "", frame(2, 0, true, ""))
	add("success", "fin false is spelled out", "stream", 2, "data: {\"a\":1}\n\n", strings.Replace(a, `"seq"`, `"fin":false,"seq"`, 1), frame(2, 1, true, ""))
	add("success", "fin null is absent", "stream", 2, "data: {\"a\":1}\n\n", strings.Replace(a, `"seq"`, `"fin":null,"seq"`, 1), frame(2, 1, true, ""))
	add("truncated", "no frame", "stream", 2, "")
	add("truncated", "no fin", "stream", 2, text, a, b)
	add("reordered", "swapped", "stream", 2, "", b, a, fin)
	add("reordered", "one missing", "stream", 2, "data: {\"a\":1}\n\n", a, fin)
	add("reordered", "one twice", "stream", 2, "data: {\"a\":1}\n\n", a, a, b, fin)
	add("after_fin", "a chunk after the end", "stream", 2, text, a, b, fin, frame(2, 3, false, "x"))
	add("after_fin", "the end twice", "stream", 2, text, a, b, fin, fin)
	add("malformed", "the end carries bytes", "stream", 2, "data: {\"a\":1}\n\n", a, frame(2, 1, true, "data: x\n\n"))
	add("decrypt_failed", "fin removed", "stream", 2, "data: {\"a\":1}\n\n", a, strings.Replace(frame(2, 1, true, ""), `"fin":true,`, "", 1))
	add("decrypt_failed", "fin added", "stream", 2, "", strings.Replace(a, `"seq"`, `"fin":true,"seq"`, 1))
	add("decrypt_failed", "from another answer", "stream", 2, "data: {\"a\":1}\n\n", a, frame(3, 1, true, ""))
	add("decrypt_failed", "renumbered", "stream", 2, "data: {\"a\":1}\n\n", a, strings.Replace(a, `"seq":0`, `"seq":1`, 1))
	return v
}

func innerRequestVectors() []vector {
	var v []vector
	add := func(expect, name, plaintext string) {
		v = append(v, vector{"name": name, "expect": expect, "plaintext": plaintext})
	}
	add("success", "known answer", knownRequest)
	add("success", "all members", `{"accept":"text/event-stream","authorization":"Bearer x","body":"e30","contentType":"application/json","headers":{"A":"1","B":"2"},"method":"POST","path":"/agents/x/run?y=1"}`)
	add("success", "least", `{"method":"GET","path":"/"}`)
	add("success", "empty headers and body", `{"body":"","headers":{},"method":"GET","path":"/"}`)
	add("success", "null is absent", `{"accept":null,"authorization":null,"body":null,"contentType":null,"headers":null,"method":"GET","path":"/"}`)
	add("success", "escapes", `{"method":"G\u0045T","path":"\/a\u002fb"}`)
	add("success", "padded body", `{"body":"AA==","method":"POST","path":"/"}`)
	add("success", "unknown fields", `{"method":"GET","path":"/","trailers":{"body":"*"},"z":[1]}`)
	add("success", "a header named like a member", `{"headers":{"body":"*","path":"x"},"method":"GET","path":"/"}`)
	for _, x := range [][2]string{
		{"empty", ""}, {"not JSON", "GET /"}, {"a list", "[]"}, {"no method", `{"path":"/"}`}, {"no path", `{"method":"GET"}`},
		{"method is null", `{"method":null,"path":"/"}`}, {"path is a number", `{"method":"GET","path":1}`},
		{"headers is a list", `{"headers":[],"method":"GET","path":"/"}`}, {"header value is a number", `{"headers":{"a":1},"method":"GET","path":"/"}`},
		{"header value is null", `{"headers":{"a":null},"method":"GET","path":"/"}`}, {"header twice", `{"headers":{"a":"1","a":"1"},"method":"GET","path":"/"}`},
		{"comma after the last header", `{"headers":{"a":"1",},"method":"GET","path":"/"}`}, {"comma before the first header", `{"headers":{,"a":"1"},"method":"GET","path":"/"}`},
		{"body in the standard alphabet", `{"body":"__+_","method":"GET","path":"/"}`}, {"body with a line break", `{"body":"AA\nAA","method":"GET","path":"/"}`},
		{"body with trailing bits", `{"body":"AB","method":"GET","path":"/"}`}, {"method twice", `{"method":"GET","method":"GET","path":"/"}`},
		{"data after the object", `{"method":"GET","path":"/"}{}`},
		{"control character in a string", "{\"method\":\"GET\",\"path\":\"/\n\"}"}, {"a comment", `{"method":"GET","path":"/"} // x`},
	} {
		add("malformed", x[0], x[1])
	}
	return v
}

func innerReplyVectors() []vector {
	var v []vector
	add := func(expect, name, plaintext string) {
		v = append(v, vector{"name": name, "expect": expect, "plaintext": plaintext})
	}
	add("success", "known answer", knownReply)
	add("success", "least", `{"status":200}`)
	add("success", "status 599", `{"status":599}`)
	add("success", "other order", ` {"status" : 404, "contentType":"text\/plain", "body":"AA==","x":null}`)
	add("success", "null is absent", `{"body":null,"contentType":null,"status":200}`)
	for _, x := range [][2]string{
		{"empty", ""}, {"no status", `{}`}, {"status 199", `{"status":199}`}, {"status 600", `{"status":600}`}, {"status beyond 64 bits", `{"status":18446744073709551816}`},
		{"negative status", `{"status":-200}`}, {"status is text", `{"status":"200"}`}, {"status with a fraction", `{"status":200.0}`},
		{"body is not base64url", `{"body":"*","status":200}`}, {"contentType is a list", `{"contentType":[],"status":200}`}, {"status twice", `{"status":200,"status":200}`},
	} {
		add("malformed", x[0], x[1])
	}
	return v
}
