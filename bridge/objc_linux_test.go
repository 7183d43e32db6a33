package bridge

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// clang returns how to check the syntax of Objective-C against GNUstep's
// Foundation and the stubs of testdata/objc, which are ours: a mistake in
// those is not seen, and neither is what a Mac would do.
func clang(t *testing.T) []string {
	t.Helper()
	bin := ""
	for _, name := range []string{"clang-19", "clang"} {
		if path, err := exec.LookPath(name); err == nil && bin == "" {
			bin = path
		}
	}
	if bin == "" {
		t.Skip("needs clang (Debian package clang-19)")
	}
	if _, err := os.Stat("/usr/include/GNUstep/Foundation/Foundation.h"); err != nil {
		t.Skip("needs GNUstep's Foundation (Debian package libgnustep-base-dev)")
	}
	dir, err := exec.Command("cc", "-print-file-name=include").Output()
	if err != nil {
		t.Skip("needs cc (Debian package gcc)")
	}
	return []string{bin, "-fsyntax-only", "-Wall", "-Werror", "-Wno-unused-command-line-argument", "-fobjc-runtime=gnustep-2.0", "-fblocks", "-fobjc-exceptions",
		"-fconstant-string-class=NSConstantString", "-Itestdata/objc/shim", "-Itestdata/objc/stubs", "-I/usr/include/GNUstep", "-idirafter", strings.TrimSpace(string(dir))}
}

func check(t *testing.T, args []string, file string) (string, error) {
	t.Helper()
	out, err := exec.Command(args[0], append(args[1:], file)...).CombinedOutput()
	return string(out), err
}

func TestObjectiveC(t *testing.T) {
	t.Parallel()
	args := clang(t)
	files, err := filepath.Glob("*/*_darwin.m")
	if err != nil || len(files) != 4 {
		t.Fatalf("the .m files are %v, %v", files, err)
	}
	for _, file := range files {
		if out, err := check(t, args, file); err != nil {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
	}
}

// TestObjectiveCCanFail plants a mistake of each kind and expects it reported.
func TestObjectiveCCanFail(t *testing.T) {
	t.Parallel()
	args := clang(t)
	for file, mistakes := range map[string][][2]string{
		"notify/notify_darwin.m": {
			{"removeDeliveredNotificationsWithIdentifiers", "removeDeliveredNotificationWithIdentifiers"}, // a selector
			{"setTitle:text(title)", "setTitle:title"},                                                    // a wrong pointer
			{"osrNotified((char *)[notice UTF8String]", "osrNotified(notice"},                             // a wrong argument of the Go side
		},
		"keychain/keychain_darwin.m": {
			{"SecItemDelete((CFDictionaryRef)", "SecItemRemove((CFDictionaryRef)"},
			{"int32_t osr_keychain_delete(const char *service, const char *account, int how)", "int32_t osr_keychain_delete(const char *service, int how, const char *account)"},
		},
		"localauth/localauth_darwin.m": {{"BOOL success, NSError *error", "NSError *error, BOOL success"}},
		"appattest/appattest_darwin.m": {{"NSString *key, NSError *error", "NSData *key, NSError *error"}},
	} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range mistakes {
			if strings.Count(string(source), m[0]) != 1 {
				t.Errorf("%s: %q is not there once", file, m[0])
			}
			spoiled := filepath.Join(t.TempDir(), filepath.Base(file))
			if err := os.WriteFile(spoiled, []byte(strings.Replace(string(source), m[0], m[1], 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := check(t, append(args, "-I"+filepath.Dir(file)), spoiled); err == nil {
				t.Errorf("%s with %q was accepted", file, m[1])
			}
		}
	}
}
