package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"osaurus/engine/fault"
	"osaurus/engine/internal/canonjson"
)

// kind is the JSON type of an argument.
type kind string

const (
	textType   kind = "string"
	numberType kind = "integer"
	truthType  kind = "boolean"
)

// argument is one that a tool takes. One without a description is known but
// not offered.
type argument struct {
	name     string
	kind     kind
	required bool
	about    string
}

// schema describes arguments for a model.
func schema(list []argument) json.RawMessage {
	properties, required := map[string]any{}, []string{}
	for _, a := range list {
		if a.about == "" {
			continue
		}
		properties[a.name] = map[string]string{"type": string(a.kind), "description": a.about}
		if a.required {
			required = append(required, a.name)
		}
	}
	raw, err := canonjson.Marshal(map[string]any{"type": "object", "properties": properties, "required": required, "additionalProperties": false})
	if err != nil {
		panic("sandbox: internal error: " + err.Error()) // strings alone
	}
	return raw
}

// arguments are those of one call, of the kinds their tool asks for.
type arguments map[string]any

// parseArguments reads what a model gave. Errors are a *toolError that names
// the field, and never a value.
func parseArguments(known []argument, raw []byte) (arguments, error) {
	var given map[string]json.RawMessage
	if canonjson.Unmarshal(raw, &given) != nil || given == nil {
		return nil, badArgument("", "the arguments are no JSON object")
	}
	in := arguments{}
	for _, a := range known {
		value, ok := given[a.name]
		if !ok || string(value) == "null" {
			if a.required {
				return nil, badArgument(a.name, a.name+" is missing")
			}
			continue
		}
		v, ok := a.kind.read(value)
		if !ok {
			return nil, badArgument(a.name, a.name+" is no "+string(a.kind))
		}
		in[a.name] = v
	}
	for name := range given {
		if !slices.ContainsFunc(known, func(a argument) bool { return a.name == name }) {
			return nil, badArgument(strings.ToValidUTF8(name[:min(len(name), maxFieldName)], ""), "there is no such argument")
		}
	}
	return in, nil
}

// maxFieldName bounds a name of the model's in an error, in bytes.
const maxFieldName = 64

func (k kind) read(raw json.RawMessage) (any, bool) {
	switch k {
	case textType:
		return readAs[string](raw)
	case numberType:
		return readAs[int64](raw)
	case truthType:
		return readAs[bool](raw)
	}
	return nil, false
}

func readAs[T any](raw json.RawMessage) (any, bool) {
	var v T
	err := json.Unmarshal(raw, &v)
	return v, err == nil
}

func (in arguments) has(name string) bool { _, ok := in[name]; return ok }

func (in arguments) text(name string) string { v, _ := in[name].(string); return v }

func (in arguments) truth(name string) bool { v, _ := in[name].(bool); return v }

func (in arguments) number(name string) (int64, bool) { v, ok := in[name].(int64); return v, ok }

// failureKind is the kind of an envelope that is not ok.
type failureKind string

const (
	invalidArgs    failureKind = "invalid_args"
	rejected       failureKind = "rejected"
	unavailable    failureKind = "unavailable"
	executionError failureKind = "execution_error"
	toolNotFound   failureKind = "tool_not_found"
)

// toolError is a failure in words for a model.
type toolError struct {
	kind      failureKind
	field     string
	message   string
	retryable bool
}

func (e *toolError) Error() string { return e.message }

func badArgument(field, message string) error {
	return &toolError{kind: invalidArgs, field: field, message: message, retryable: true}
}

// asToolError finds the words for any error. Causes stay on the host.
func asToolError(err error) *toolError {
	var e *toolError
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, ErrSwitchedOff), errors.Is(err, ErrTurnLimit):
		return &toolError{kind: rejected, message: fault.Of(err).Public()}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &toolError{kind: rejected, message: "The run was cancelled."}
	case errors.Is(err, fault.Unsupported), errors.Is(err, fault.SandboxUnavailable):
		return &toolError{kind: unavailable, message: fault.Of(err).Public()}
	}
	return &toolError{kind: executionError, message: fault.Of(err).Public()}
}

// envelope is what a model is told of a call.
func envelope(tool string, result any, err error) string {
	out := map[string]any{"ok": err == nil, "tool": tool}
	if err == nil {
		out["result"] = result
	} else {
		e := asToolError(err)
		out["kind"], out["message"], out["retryable"] = e.kind, e.message, e.retryable
		if e.field != "" {
			out["field"] = e.field
		}
	}
	raw, err := canonjson.Marshal(out)
	if err != nil {
		return `{"kind":"execution_error","message":"The result cannot be written.","ok":false,"retryable":false}`
	}
	return string(raw)
}
