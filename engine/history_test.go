package engine_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"osaurus/engine/pairing"
	"osaurus/engine/storage/chats"
)

// TestChatsOutliveTheHost: what a peer said, images included, is there after a
// restart and a rotation, is part of the next answer's history, and stands
// nowhere readable.
func TestChatsOutliveTheHost(t *testing.T) {
	t.Parallel()
	homes := [2]string{t.TempDir(), t.TempDir()}
	alice, bob := start(t, homes[0]), start(t, homes[1])
	wait := alice.approve(pairing.NinetyDays)
	peer, err := bob.Pair(t.Context(), alice.agent(), "assistant")
	wait()
	if err != nil {
		t.Fatal(err)
	}
	image := bytes.Repeat([]byte("pumpernickel "), 3000)
	say := func(path, body string) {
		t.Helper()
		resp, err := bob.CallPeer(t.Context(), peer, func(base *url.URL) (*http.Request, error) {
			return http.NewRequest(http.MethodPost, base.JoinPath(path).String(), strings.NewReader(body))
		})
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s, %v", path, resp.StatusCode, raw, err)
		}
	}
	run := "agents/" + peer.Address.Lower() + "/run"
	say(run, fmt.Sprintf(`{"model":"echo","session_id":"s","messages":[{"role":"user","content":[{"type":"text","text":"what is pumpernickel"},{"type":"image_url","image_url":{"url":"data:image/png;base64,%s"}}]}]}`, base64.StdEncoding.EncodeToString(image)))
	say("memory/ingest", fmt.Sprintf(`{"agent_id":%q,"conversation_id":"c","turns":[{"user":"pumpernickel is bread","assistant":"noted","date":"2026-01-02"}]}`, alice.agent().AgentID))
	if _, err := alice.RotateStorage(t.Context(), false, nil); err != nil {
		t.Fatal(err)
	}
	alice.stop()
	alice = start(t, homes[0])
	peer.BaseURL = alice.url.String()
	say(run, `{"model":"echo","session_id":"s","messages":[{"role":"user","content":"and now"}]}`)

	list, err := alice.Chats.List(t.Context(), chats.Filter{Text: "PUMPERNICKEL"})
	if err != nil || len(list) != 1 || list[0].TurnCount != 4 || list[0].Title != "what is pumpernickel" {
		t.Fatalf("%+v, %v", list, err)
	}
	s, err := alice.Chats.Load(t.Context(), list[0].ID)
	if err != nil || len(s.Turns) != 4 || len(s.Turns[0].Attachments) != 1 || s.Turns[2].Content != "and now" {
		t.Fatalf("%+v, %v", s, err)
	}
	kept, err := alice.Chats.Content(t.Context(), s.Turns[0].Attachments[0])
	if err != nil || !bytes.Equal(kept.Content, image) || kept.Format != "image/png" {
		t.Errorf("the image: %d bytes, %s, %v", len(kept.Content), kept.Format, err)
	}
	found, err := alice.Memory.Query(t.Context(), alice.agent().AgentID, "bread", 0)
	if err != nil || len(found) != 1 || found[0].Created.Year() != 2026 || found[0].Created.Day() != 2 {
		t.Errorf("%+v, %v", found, err)
	}
	alice.stop()
	bob.stop()
	for _, home := range homes {
		nothingReadable(t, home, "pumpernickel")
	}
}

// TestRunsWithoutASession are kept too, each by itself and without a past.
func TestRunsWithoutASession(t *testing.T) {
	t.Parallel()
	alice, bob := start(t, t.TempDir()), start(t, t.TempDir())
	wait := alice.approve(pairing.NinetyDays)
	peer, err := bob.Pair(t.Context(), alice.agent(), "assistant")
	wait()
	if err != nil {
		t.Fatal(err)
	}
	for _, prompt := range []string{"first", "second"} {
		if status, out, err := bob.ask(peer, prompt); err != nil || status != http.StatusOK {
			t.Fatalf("%d %s %v", status, out, err)
		}
	}
	list, err := alice.Chats.List(t.Context(), chats.Filter{})
	if err != nil || len(list) != 2 || list[0].TurnCount != 2 || list[1].TurnCount != 2 {
		t.Errorf("%+v %v", list, err)
	}
}
