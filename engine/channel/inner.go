package channel

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// innerRequest is the plaintext of an envelope, section 4. Members that are
// empty are not written:
//
//	{"accept","authorization","body":"<base64url>","contentType",
//	 "headers":{…},"method","path"}
type innerRequest struct {
	method, path                       string
	authorization, accept, contentType string
	headers                            []header // in the order written
	body                               []byte
}

type header struct{ name, value string }

// appendInnerRequest fails with ErrMalformed when a text is not UTF-8.
func appendInnerRequest(dst []byte, r *innerRequest) (_ []byte, err error) {
	dst = append(dst, '{')
	for _, m := range []header{{"accept", r.accept}, {"authorization", r.authorization}} {
		if dst, err = appendMember(dst, m, true); err != nil {
			return nil, err
		}
	}
	if len(r.body) > 0 {
		dst = append(dst, `"body":"`...)
		dst = appendBase64(dst, r.body)
		dst = append(dst, `",`...)
	}
	if dst, err = appendMember(dst, header{"contentType", r.contentType}, true); err != nil {
		return nil, err
	}
	if len(r.headers) > 0 {
		dst = append(dst, `"headers":{`...)
		for _, h := range r.headers {
			if dst, err = appendMember(dst, h, false); err != nil {
				return nil, err
			}
		}
		dst[len(dst)-1] = '}'
		dst = append(dst, ',')
	}
	for _, m := range []header{{"method", r.method}, {"path", r.path}} {
		if dst, err = appendMember(dst, m, false); err != nil {
			return nil, err
		}
	}
	dst[len(dst)-1] = '}'
	return dst, nil
}

// appendMember writes "name":"value", with a comma after it.
func appendMember(dst []byte, m header, omitEmpty bool) ([]byte, error) {
	if omitEmpty && m.value == "" {
		return dst, nil
	}
	dst, err := quote(dst, m.name)
	if err != nil {
		return nil, err
	}
	if dst, err = quote(append(dst, ':'), m.value); err != nil {
		return nil, err
	}
	return append(dst, ','), nil
}

// parseInnerRequest copies everything out of data, the body after buf. Errors:
// ErrMalformed.
func parseInnerRequest(data, buf []byte) (*innerRequest, error) {
	if r, ok := parseInnerRequestFixed(data, buf); ok {
		return r, nil
	}
	return parseInnerRequestAnyOrder(data, buf)
}

func parseInnerRequestFixed(data, buf []byte) (*innerRequest, bool) {
	var r innerRequest
	s := scanner{rest: data}
	s.expect("{")
	member := func(name string, to *string) {
		if s.has(name) {
			*to = string(s.text())
			s.expect(",")
		}
	}
	member(`"accept":"`, &r.accept)
	member(`"authorization":"`, &r.authorization)
	if s.has(`"body":"`) {
		var ok bool
		if r.body, ok = appendDecoded(buf, s.opaque()); !ok {
			return nil, false
		}
		s.expect(",")
	}
	member(`"contentType":"`, &r.contentType)
	if s.has(`"headers":{`) {
		r.headers = s.members()
		s.expect(",")
	}
	s.expect(`"method":"`)
	r.method = string(s.text())
	s.expect(`,"path":"`)
	r.path = string(s.text())
	s.expect("}")
	return &r, s.done()
}

func parseInnerRequestAnyOrder(data, buf []byte) (*innerRequest, error) {
	var (
		r         innerRequest
		body      []byte
		method    bool
		path      bool
		bodyGiven bool
	)
	err := parseObject(data, func(name string, d *jsontext.Decoder) (err error) {
		switch name {
		case "method":
			method, err = setText(&r.method, d)
		case "path":
			path, err = setText(&r.path, d)
		case "authorization":
			_, err = setText(&r.authorization, d)
		case "accept":
			_, err = setText(&r.accept, d)
		case "contentType":
			_, err = setText(&r.contentType, d)
		case "headers":
			r.headers, err = readHeaders(d)
		case "body":
			body, bodyGiven, err = readText(d)
		default:
			err = skipValue(d)
		}
		return err
	})
	if err != nil || !method || !path {
		return nil, ErrMalformed
	}
	if bodyGiven {
		if r.body, bodyGiven = appendDecoded(buf, body); !bodyGiven {
			return nil, ErrMalformed
		}
	}
	return &r, nil
}

func setText(to *string, d *jsontext.Decoder) (bool, error) {
	text, ok, err := readText(d)
	*to = string(text)
	return ok, err
}

func readHeaders(d *jsontext.Decoder) ([]header, error) {
	if d.PeekKind() == jsontext.KindNull {
		return nil, skipValue(d)
	}
	var all []header
	err := readObject(d, func(name string, d *jsontext.Decoder) error {
		value, ok, err := readText(d)
		if err != nil || !ok {
			return ErrMalformed
		}
		all = append(all, header{name, string(value)})
		return nil
	})
	return all, err
}

// innerReply is the plaintext of a buffered answer, section 5:
//
//	{"body":"<base64url>","contentType","status":<int>}
type innerReply struct {
	status      int
	contentType string
	body        []byte
}

func appendInnerReply(dst []byte, r innerReply) ([]byte, error) {
	dst = append(dst, '{')
	if len(r.body) > 0 {
		dst = append(dst, `"body":"`...)
		dst = appendBase64(dst, r.body)
		dst = append(dst, `",`...)
	}
	dst, err := appendMember(dst, header{"contentType", r.contentType}, true)
	if err != nil {
		return nil, err
	}
	dst = append(dst, `"status":`...)
	dst = strconv.AppendInt(dst, int64(r.status), 10)
	return append(dst, '}'), nil
}

// parseInnerReply copies everything out of data, the body after buf. A status
// that no response can have and a body over maxBody are refused. Errors: ErrMalformed, ErrTooLarge.
func parseInnerReply(data, buf []byte) (innerReply, error) {
	r, ok := parseInnerReplyFixed(data, buf)
	if !ok {
		var err error
		if r, err = parseInnerReplyAnyOrder(data, buf); err != nil {
			return innerReply{}, err
		}
	}
	if r.status < 200 || r.status > 599 {
		return innerReply{}, ErrMalformed
	}
	if len(r.body) > maxBody {
		return innerReply{}, ErrTooLarge
	}
	return r, nil
}

func parseInnerReplyFixed(data, buf []byte) (r innerReply, ok bool) {
	s := scanner{rest: data}
	s.expect("{")
	if s.has(`"body":"`) {
		if r.body, ok = appendDecoded(buf, s.opaque()); !ok {
			return r, false
		}
		s.expect(",")
	}
	if s.has(`"contentType":"`) {
		r.contentType = string(s.text())
		s.expect(",")
	}
	s.expect(`"status":`)
	status := s.number()
	s.expect("}")
	r.status = int(min(status, 1000))
	return r, s.done()
}

func parseInnerReplyAnyOrder(data, buf []byte) (innerReply, error) {
	var (
		r              innerReply
		status         uint64
		body           []byte
		given, present bool
	)
	err := parseObject(data, func(name string, d *jsontext.Decoder) (err error) {
		switch name {
		case "status":
			status, err = readUint(d)
			present = true
		case "contentType":
			_, err = setText(&r.contentType, d)
		case "body":
			body, given, err = readText(d)
		default:
			err = skipValue(d)
		}
		return err
	})
	if err != nil || !present {
		return innerReply{}, ErrMalformed
	}
	r.status = int(min(status, 1000))
	if given {
		if r.body, given = appendDecoded(buf, body); !given {
			return innerReply{}, ErrMalformed
		}
	}
	return r, nil
}
