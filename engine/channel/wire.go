package channel

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// Each message has an append and a parse function. Writers use one fixed form,
// keys sorted. Parsers try that form first and fall back to the tolerant
// reader, which accepts all the fast one does, with the same result.

// envelope is a sealed request, section 4:
//
//	{"ct":"<base64url>","seq":<uint64>,"sid":"<base64url>","v":1}
type envelope struct {
	ct  []byte // ciphertext ‖ tag
	seq uint64
	sid []byte // as it stood on the wire
}

func appendEnvelope(dst []byte, e envelope) []byte {
	dst = append(dst, `{"ct":"`...)
	dst = appendBase64(dst, e.ct)
	dst = append(dst, `","seq":`...)
	dst = strconv.AppendUint(dst, e.seq, 10)
	dst = append(dst, `,"sid":"`...)
	dst = append(dst, e.sid...)
	return append(dst, `","v":1}`...)
}

// parseEnvelope decodes the ciphertext after buf, which may be nil. The result
// shares memory with data and buf. Errors: ErrMalformed.
func parseEnvelope(data, buf []byte) (envelope, error) {
	s := scanner{rest: data}
	s.expect(`{"ct":"`)
	ct := s.opaque()
	s.expect(`,"seq":`)
	seq := s.number()
	s.expect(`,"sid":"`)
	sid := s.text()
	s.expect(`,"v":1}`)
	if s.done() {
		if raw, ok := appendDecoded(buf, ct); ok {
			return envelope{ct: raw, seq: seq, sid: sid}, nil
		}
	}
	return parseEnvelopeAnyOrder(data, buf)
}

func parseEnvelopeAnyOrder(data, buf []byte) (envelope, error) {
	var (
		e             envelope
		v             string
		ct            []byte
		hasCT, hasSID bool
		hasSeq        bool
	)
	err := parseObject(data, func(name string, d *jsontext.Decoder) (err error) {
		switch name {
		case "v":
			v, err = readInteger(d)
		case "sid":
			e.sid, hasSID, err = readText(d)
		case "seq":
			e.seq, err = readUint(d)
			hasSeq = true
		case "ct":
			ct, hasCT, err = readText(d)
		default:
			err = skipValue(d)
		}
		return err
	})
	if err != nil || v != version || !hasCT || !hasSID || !hasSeq {
		return envelope{}, ErrMalformed
	}
	var ok bool
	if e.ct, ok = appendDecoded(buf, ct); !ok {
		return envelope{}, ErrMalformed
	}
	return e, nil
}

// frame is one piece of an answer, section 5. fin is written only when true:
//
//	{"ct":"<base64url>","fin":true,"seq":<uint64>}
type frame struct {
	ct  []byte // ciphertext ‖ tag
	fin bool
	seq uint64
}

func appendFrame(dst []byte, f frame) []byte {
	dst = append(dst, `{"ct":"`...)
	dst = appendBase64(dst, f.ct)
	if f.fin {
		dst = append(dst, `","fin":true,"seq":`...)
	} else {
		dst = append(dst, `","seq":`...)
	}
	dst = strconv.AppendUint(dst, f.seq, 10)
	return append(dst, '}')
}

// parseFrame decodes the ciphertext after buf. Errors: ErrMalformed.
func parseFrame(data, buf []byte) (frame, error) {
	s := scanner{rest: data}
	s.expect(`{"ct":"`)
	ct := s.opaque()
	fin := s.has(`,"fin":true`)
	s.expect(`,"seq":`)
	seq := s.number()
	s.expect(`}`)
	if s.done() {
		if raw, ok := appendDecoded(buf, ct); ok {
			return frame{ct: raw, fin: fin, seq: seq}, nil
		}
	}
	return parseFrameAnyOrder(data, buf)
}

func parseFrameAnyOrder(data, buf []byte) (frame, error) {
	var (
		f             frame
		ct            []byte
		hasCT, hasSeq bool
	)
	err := parseObject(data, func(name string, d *jsontext.Decoder) (err error) {
		switch name {
		case "ct":
			ct, hasCT, err = readText(d)
		case "seq":
			f.seq, err = readUint(d)
			hasSeq = true
		case "fin":
			f.fin, err = readFlag(d)
		default:
			err = skipValue(d)
		}
		return err
	})
	if err != nil || !hasCT || !hasSeq {
		return frame{}, ErrMalformed
	}
	var ok bool
	if f.ct, ok = appendDecoded(buf, ct); !ok {
		return frame{}, ErrMalformed
	}
	return f, nil
}
