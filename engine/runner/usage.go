package runner

import (
	"encoding/json"

	"osaurus/engine/internal/canonjson"
)

// addUsage returns what two rounds used together. The details of a round that
// are no plain counts are those of the later one.
func addUsage(first, second json.RawMessage) json.RawMessage {
	if first == nil {
		return second
	}
	if second == nil {
		return first
	}
	var a, b map[string]json.RawMessage
	if json.Unmarshal(first, &a) != nil || json.Unmarshal(second, &b) != nil || b == nil {
		return second
	}
	for _, name := range []string{"prompt_tokens", "completion_tokens", "total_tokens"} {
		var x, y int64
		if json.Unmarshal(a[name], &x) != nil || json.Unmarshal(b[name], &y) != nil {
			continue
		}
		sum, err := json.Marshal(x + y)
		if err == nil {
			b[name] = sum
		}
	}
	raw, err := canonjson.Marshal(b)
	if err != nil {
		return second
	}
	return raw
}
