package engine

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"mime"
	"strings"

	"osaurus/engine/runner"
	"osaurus/engine/storage/blob"
	"osaurus/engine/storage/chats"
)

// history is the chat history as runs use it.
type history struct{ chats *chats.Chats }

var _ runner.Chats = history{}

// conversation names the session of a scope. Keys of one caller never reach
// another's: the caller is part of the name (decisions C5).
func conversation(s runner.Scope) chats.Session {
	return chats.Session{PluginID: chats.PluginHTTP, ExternalKey: strings.Join([]string{s.Audience, s.Nonce, s.Session}, "/"), AgentID: s.AgentID, Source: chats.SourceHTTP}
}

// Turns implements runner.Chats.
func (h history) Turns(ctx context.Context, s runner.Scope) ([]runner.Message, error) {
	turns, err := h.chats.Last(ctx, conversation(s), runner.MaxTurns)
	if err != nil {
		return nil, err
	}
	var out []runner.Message
	for _, t := range turns {
		m, err := h.message(ctx, t)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// Append implements runner.Chats.
func (h history) Append(ctx context.Context, s runner.Scope, turns ...runner.Message) error {
	of := conversation(s)
	var kept []chats.Turn
	for _, m := range turns {
		if of.Title == "" && m.Role == "user" {
			of.Title = title(m.Text())
		}
		kept = append(kept, turn(m))
	}
	return h.chats.Append(ctx, of, kept...)
}

// maxTitle is how many characters of the first question name a session.
const maxTitle = 80

func title(text string) string {
	runes := []rune(strings.Join(strings.Fields(text), " "))
	if len(runes) > maxTitle {
		return string(runes[:maxTitle-1]) + "…"
	}
	return string(runes)
}

// part is one element of a message's content.
type part struct {
	Type     string `json:"type"`
	Text     string `json:"text,omitempty"`
	ImageURL *struct {
		URL string `json:"url"`
	} `json:"image_url,omitempty"`
}

// turn keeps the text of a message and the images it carries. An image that is
// only linked is not fetched; its link stays in the text.
func turn(m runner.Message) chats.Turn {
	t := chats.Turn{Role: m.Role, Content: m.Text()}
	var parts []part
	if json.Unmarshal(m.Content, &parts) != nil {
		return t
	}
	for _, p := range parts {
		if p.ImageURL == nil {
			continue
		}
		if format, content, ok := dataURL(p.ImageURL.URL); ok {
			t.Attachments = append(t.Attachments, blob.Attachment{Kind: blob.Image, Format: format, Content: content})
		} else {
			t.Content = strings.TrimPrefix(t.Content+"\n"+p.ImageURL.URL, "\n")
		}
	}
	return t
}

// dataURL takes apart a base64 data: URL (RFC 2397).
func dataURL(s string) (mediaType string, content []byte, ok bool) {
	head, data, ok := strings.Cut(s, ";base64,")
	mediaType, isData := strings.CutPrefix(head, "data:")
	if _, _, err := mime.ParseMediaType(mediaType); !ok || !isData || err != nil {
		return "", nil, false
	}
	content, err := base64.StdEncoding.DecodeString(data)
	return mediaType, content, err == nil
}

func (h history) message(ctx context.Context, t chats.Turn) (runner.Message, error) {
	m := runner.Message{Role: t.Role}
	var err error
	if len(t.Attachments) == 0 {
		m.Content, err = json.Marshal(t.Content)
		return m, err
	}
	parts := []any{}
	if t.Content != "" {
		parts = append(parts, part{Type: "text", Text: t.Content})
	}
	for _, a := range t.Attachments {
		if a, err = h.chats.Content(ctx, a); err != nil {
			return m, err
		}
		switch a.Kind {
		case blob.Image:
			format := a.Format
			if format == "" {
				format = "image/png"
			}
			parts = append(parts, map[string]any{"type": "image_url", "image_url": map[string]string{"url": "data:" + format + ";base64," + base64.StdEncoding.EncodeToString(a.Content)}})
		case blob.Document:
			parts = append(parts, part{Type: "text", Text: string(a.Content)})
		case blob.Audio, blob.Video:
		}
	}
	m.Content, err = json.Marshal(parts)
	return m, err
}
