package sandbox

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"osaurus/engine/secret"
)

func identityOf(agentID string, uid uint32, box string) Identity {
	return Identity{agentID, LinuxName(agentID), uid, box}
}

// mint registers and returns the token, "" when it existed.
func mint(t *testing.T, s *Tokens, id Identity) (text string, done Outcome) {
	t.Helper()
	done, err := s.Register(id, func(b secret.Bytes) error { text = string(b.Expose()); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return text, done
}

func TestTokens(t *testing.T) {
	t.Parallel()
	s := NewTokens(nil)
	a, b := identityOf(agentA, uidA, boxA), identityOf(agentB, uidB, boxB)
	first, done := mint(t, s, a)
	if done != Created || len(first) != tokenLength || strings.Trim(first, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		t.Errorf("%v, %d characters", done, len(first))
	}
	if again, done := mint(t, s, a); done != Existing || again != "" {
		t.Errorf("the second time: %v", done)
	}
	second, _ := mint(t, s, b)
	if first == second || s.Len() != 2 {
		t.Error("two agents, one token")
	}
	if id, ok := s.Resolve([]byte(first)); !ok || id != a {
		t.Error(id, ok)
	}
	for _, bad := range []string{"", "x", first[1:], first + "A", strings.Repeat("\x00", 32)} {
		if id, ok := s.Resolve([]byte(bad)); ok || id != (Identity{}) {
			t.Errorf("%d bytes resolved", len(bad))
		}
	}
	if !s.Revoke(a.LinuxName) || s.Revoke(a.LinuxName) {
		t.Error("Revoke")
	}
	if _, ok := s.Resolve([]byte(first)); ok {
		t.Error("a revoked token resolves")
	}
	if _, ok := s.Resolve([]byte(second)); !ok {
		t.Error("revoking one revoked the other")
	}
	s.RevokeAll()
	if _, ok := s.Resolve([]byte(second)); ok || s.Len() != 0 {
		t.Error("RevokeAll")
	}
	if text := fmt.Sprintf("%+v %#v", s, s); strings.Contains(text, first) || strings.Contains(text, second) {
		t.Error("the store holds a token in clear")
	}
}

func TestTokensRebind(t *testing.T) {
	t.Parallel()
	s := NewTokens(nil)
	a := identityOf(agentA, uidA, boxA)
	first, _ := mint(t, s, a)
	taken := a
	taken.AgentID = agentB
	if _, err := s.Register(taken, nil); !errors.Is(err, ErrNameTaken) {
		t.Errorf("two agents, one name: %v", err)
	}
	moved := a
	moved.Sandbox = boxB
	second, done := mint(t, s, moved)
	if done != Created || second == first {
		t.Error("another sandbox keeps the token")
	}
	if _, ok := s.Resolve([]byte(first)); ok {
		t.Error("the old one still resolves")
	}
	s.RevokeSandbox(boxA)
	if _, ok := s.Resolve([]byte(second)); !ok {
		t.Error("another sandbox's end")
	}
	s.RevokeSandbox(boxB)
	if s.Len() != 0 {
		t.Error("RevokeSandbox")
	}
}

func TestTokensFail(t *testing.T) {
	t.Parallel()
	a := identityOf(agentA, uidA, boxA)
	s := NewTokens(iotest.ErrReader(errors.New("no randomness")))
	if _, err := s.Register(a, nil); err == nil || s.Len() != 0 {
		t.Error("a token without randomness")
	}
	s = NewTokens(nil)
	var leaked string
	if _, err := s.Register(a, func(b secret.Bytes) error { leaked = string(b.Expose()); return errors.New("disk full") }); err == nil || s.Len() != 0 {
		t.Error("a token that was not delivered stays")
	}
	if _, ok := s.Resolve([]byte(leaked)); ok {
		t.Error("it resolves")
	}
	for _, bad := range []Identity{{}, {agentA, "root", uidA, boxA}, {agentA, LinuxName(agentA), 0, boxA}, {agentA, LinuxName(agentA), 1999, boxA}, {agentA, LinuxName(agentA), 60000, boxA}, {agentA, LinuxName(agentA), uidA, ""}, {"", LinuxName(agentA), uidA, boxA}} {
		if _, err := s.Register(bad, nil); err == nil {
			t.Errorf("%+v was registered", bad)
		}
	}
}

func TestTokensTogether(t *testing.T) {
	t.Parallel()
	s := NewTokens(nil)
	var group sync.WaitGroup
	for i := range 8 {
		id := identityOf(fmt.Sprintf("%08d-0000-0000-0000-000000000000", i), uint32(2000+i), boxA)
		group.Go(func() {
			for range 200 {
				text := ""
				if _, err := s.Register(id, func(b secret.Bytes) error { text = string(b.Expose()); return nil }); err != nil {
					t.Error(err)
				}
				if got, ok := s.Resolve([]byte(text)); ok && got != id {
					t.Error("another's identity")
				}
				s.Revoke(id.LinuxName)
			}
		})
	}
	group.Go(func() {
		for range 200 {
			s.RevokeAll()
		}
	})
	group.Wait()
}
