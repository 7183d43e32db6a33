package dnssd

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxItem bounds key, "=" and value of one item in bytes (RFC 6763 section 6.1).
const maxItem = 255

// appendTXT writes a TXT record, its keys in order.
func appendTXT(b []byte, txt map[string]string) ([]byte, error) {
	for _, key := range slices.Sorted(maps.Keys(txt)) {
		item := key + "=" + txt[key]
		if len(item) > maxItem {
			return nil, fmt.Errorf("the TXT item %s has %d bytes; %d fit", key, len(item), maxItem)
		}
		b = append(append(b, byte(len(item))), item...)
	}
	return b, nil
}

// parseTXT reads what is whole of a TXT record. The first of equal keys
// counts, and keys are compared without case (RFC 6763 section 6.4).
func parseTXT(b []byte) map[string]string {
	txt := map[string]string{}
	for len(b) > 0 && len(b) > int(b[0]) {
		end := 1 + int(b[0])
		item := string(b[1:end])
		b = b[end:]
		key, value, _ := strings.Cut(item, "=")
		if key = strings.ToLower(key); key == "" {
			continue
		}
		if _, twice := txt[key]; !twice {
			txt[key] = value
		}
	}
	return txt
}
