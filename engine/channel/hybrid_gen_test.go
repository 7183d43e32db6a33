package channel_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/cloudflare/circl/kem/mlkem/mlkem768"
)

// The fixed inputs of the hybrid vectors: seeds of FIPS 203, d ‖ z and m.
var (
	kemSeed  = bytes.Repeat([]byte{0x5a}, mlkem768.KeySeedSize)
	kemCoins = bytes.Repeat([]byte{0xc3}, mlkem768.EncapsulationSeedSize)
)

func knownPQPub() string {
	pub, _ := mlkem768.NewKeyFromSeed(kemSeed)
	return dialect{}.b64(must(pub.MarshalBinary()))
}

// hybridVectors are answers to a hello that offers the post-quantum exchange,
// made with an ML-KEM that is not the package's.
func hybridVectors() []vector {
	pub, _ := mlkem768.NewKeyFromSeed(kemSeed)
	ct, quantum := make([]byte, mlkem768.CiphertextSize), make([]byte, mlkem768.SharedKeySize)
	pub.EncapsulateTo(ct, quantum, kemCoins)
	pqPub, pqCt := knownPQPub(), dialect{}.b64(ct)
	classic := transcriptOf(agentAddress, knownClient, knownNonce, knownSID, knownServer, knownExpiry)
	whole := classic + "|pP=" + pqPub + "|pC=" + pqCt
	answer := func(pqCt, signed string) string {
		return fmt.Sprintf(`{"encPub":%q,"expiresAt":%d,"pqCt":%q,"sid":%q,"signature":%q,"v":1}`, knownServer, knownExpiry, pqCt, knownSID, naiveSign(agentKey, signed))
	}
	good := answer(pqCt, whole)
	var v []vector
	add := func(expect, name, answer string, hybrid bool, session *naiveSession) {
		x := vector{"name": name, "expect": expect, "answer": answer, "hybrid": hybrid, "client_private": clientPrivate, "nonce": knownNonce, "kem_seed": hex.EncodeToString(kemSeed), "pinned": agentAddress, "now": knownExpiry - 3600}
		if session != nil {
			x["c2s"], x["s2c"] = hex.EncodeToString(session.c2s), hex.EncodeToString(session.s2c)
		}
		v = append(v, x)
	}
	shared := unhex(knownShared)
	both := naiveKeys(append(bytes.Clone(shared), quantum...), whole, knownSID)
	add("success", "hybrid", good, true, both)
	v[0]["transcript"], v[0]["pqPub"], v[0]["mlkem_shared"] = whole, pqPub, hex.EncodeToString(quantum)
	add("success", "a peer without it", strings.Replace(answer("", classic), `"pqCt":"",`, "", 1), false, naiveKeys(shared, classic, knownSID))
	add("wrong_address", "pqCt taken away", strings.Replace(good, `"pqCt":"`+pqCt+`",`, "", 1), false, nil)
	add("wrong_address", "pqCt changed", strings.Replace(good, pqCt, "A"+pqCt[1:], 1), true, nil)
	add("wrong_address", "signed without the extension", answer(pqCt, classic), true, nil)
	add("malformed", "pqCt of 1087 bytes", answer(dialect{}.b64(ct[:1087]), whole), true, nil)
	add("malformed", "pqCt of 1089 bytes", answer(dialect{}.b64(append(bytes.Clone(ct), 0)), whole), true, nil)
	add("malformed", "empty pqCt", answer("", whole), true, nil)
	add("wrong_address", "pqCt is null, which is none", strings.Replace(good, `"`+pqCt+`"`, "null", 1), true, nil)
	return v
}
