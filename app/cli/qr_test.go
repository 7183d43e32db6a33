package cli

import (
	"strings"
	"testing"

	"rsc.io/qr"
)

// TestQRCode reads the drawing back and compares it with the library's bitmap:
// every module, and a light zone of four around them.
func TestQRCode(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"osaurus://x", "osaurus://0x331565e19602986634610f4b33ff7ad182860036?pair=" + strings.Repeat("eyJh", 150)} {
		want, err := qr.Encode(text, qr.L)
		if err != nil {
			t.Fatal(err)
		}
		for _, color := range []bool{true, false} {
			lines, width, err := qrCode(text, color)
			if err != nil || width != want.Size+8 || len(lines) != (width+1)/2 {
				t.Fatal(len(lines), width, err)
			}
			for i, line := range lines {
				plain := strings.TrimSuffix(strings.TrimPrefix(line, qrColors), qrReset)
				if color == (plain == line) {
					t.Fatal("colours: ", color)
				}
				runes := []rune(plain)
				if len(runes) != width {
					t.Fatalf("line %d has %d columns, want %d", i, len(runes), width)
				}
				for x, r := range runes {
					for row, marks := range []string{"█▀", "█▄"} {
						y := 2*i + row
						if y >= width {
							continue
						}
						if black := strings.ContainsRune(marks, r) == color; black != want.Black(x-4, y-4) {
							t.Fatalf("module %d,%d is %v", x, y, black)
						}
					}
				}
			}
		}
	}
	if _, _, err := qrCode(strings.Repeat("x", 3000), true); err == nil {
		t.Error("more than a code holds")
	}
}
