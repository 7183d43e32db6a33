package control

import (
	"context"
	"errors"
	"time"

	"osaurus/engine/fault"
	"osaurus/engine/storage"
	"osaurus/engine/storage/archive"
	"osaurus/engine/storage/chats"
	"osaurus/engine/storage/memory"
)

// StorageOrder asks for an operation over all stores: rotate, encrypt,
// decrypt, verify, maintain or export.
type StorageOrder struct {
	What       string   `json:"what"`
	FromMaster bool     `json:"from_master,omitempty"` // rotate to a key derived from the identity
	Dest       string   `json:"dest,omitempty"`        // the folder that gets the export
	Tar        bool     `json:"tar,omitempty"`         // export one archive
	Recipients []string `json:"recipients,omitempty"`  // export an archive encrypted to these age recipients
}

// StorageEvent is one line of an operation: how far it is, what it did, or why
// it ended.
type StorageEvent struct {
	Progress *storage.Progress `json:"progress,omitempty"`
	Done     *StorageDone      `json:"done,omitempty"`
	Error    *Error            `json:"error,omitempty"`
}

// StorageDone is what an operation did.
type StorageDone struct {
	NewKeyID  string       `json:"new_key_id,omitempty"`
	Stores    int          `json:"stores,omitempty"`
	Files     int          `json:"files,omitempty"`
	Converted []storage.ID `json:"converted,omitempty"`
	Issues    []StoreIssue `json:"issues,omitempty"`
	Unread    []string     `json:"unreadable_files,omitempty"` // below the home; left as they were

	// Of an export and an import.
	Path        string   `json:"path,omitempty"`
	Attachments int      `json:"attachments,omitempty"`
	Bytes       int64    `json:"bytes,omitempty"`
	Missing     []string `json:"missing,omitempty"`  // what is not part of the export
	Replaced    []string `json:"replaced,omitempty"` // where what was replaced lies, below the home
}

// StoreIssue is a store that stays as it is, and why.
type StoreIssue struct {
	Store storage.ID        `json:"store"`
	Issue storage.IssueKind `json:"issue"`
}

// RecoverStore names what the owner wants for a store: retry, reset or accept;
// or for all whose key is missing, without a store: retry, identity or
// start-over.
type RecoverStore struct {
	Store  storage.ID `json:"store"`
	Action string     `json:"action"`
}

func (s *Server) storageOps() {
	op(s, "storage/status", func(ctx context.Context, _ Empty) (storage.Status, error) { return s.engine.StorageStatus(ctx) })
	op(s, "storage/quarantine", func(context.Context, Empty) ([]storage.Quarantined, error) { return s.engine.Storage.Quarantine() })
	op(s, "storage/maintained", func(context.Context, Empty) ([]storage.Maintained, error) { return s.engine.Storage.Maintained(), nil })
	do(s, "storage/recover", s.recoverStore)
	op(s, "storage/remains", func(context.Context, Empty) ([]storage.Remains, error) { return s.engine.Storage.Remains() })
	do(s, "storage/settle", func(ctx context.Context, in SettleRemains) error {
		return s.engine.Storage.Settle(ctx, in.Path, in.Keep)
	})
	op(s, "memory/add", func(ctx context.Context, in Remember) (memory.Fact, error) {
		a, err := s.find(in.Agent)
		if err != nil {
			return memory.Fact{}, err
		}
		return s.engine.Memory.Add(ctx, a.ID, in.Text)
	})
	op(s, "memory/list", func(ctx context.Context, in Remember) ([]memory.Fact, error) {
		if in.Agent == "" {
			return s.engine.Memory.Facts(ctx, "")
		}
		a, err := s.find(in.Agent)
		if err != nil {
			return nil, err
		}
		return s.engine.Memory.Facts(ctx, a.ID)
	})
	op(s, "memory/query", func(ctx context.Context, in Remember) ([]memory.Found, error) {
		a, err := s.find(in.Agent)
		if err != nil {
			return nil, err
		}
		return s.engine.Memory.Query(ctx, a.ID, in.Text, in.Limit)
	})
	do(s, "memory/forget", func(ctx context.Context, in ID) error { return s.engine.Memory.Forget(ctx, in.ID) })
	op(s, "chats/list", func(ctx context.Context, in ChatFilter) ([]Chat, error) {
		list, err := s.engine.Chats.List(ctx, chats.Filter{AgentID: in.AgentID, Text: in.Text, Limit: in.Limit, Archived: in.Archived})
		out := make([]Chat, 0, len(list))
		for _, c := range list {
			out = append(out, chat(c))
		}
		return out, err
	})
	op(s, "chats/show", func(ctx context.Context, in ID) (Chat, error) {
		c, err := s.loadChat(ctx, in.ID)
		return chat(c), err
	})
	do(s, "chats/delete", func(ctx context.Context, in ID) error {
		if _, err := s.loadChat(ctx, in.ID); err != nil {
			return err
		}
		return s.engine.Chats.Delete(ctx, in.ID)
	})
	lines(s, "storage/operate", func(ctx context.Context, in StorageOrder, emit func(StorageEvent) error) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		done, err := s.operate(ctx, in, func(p storage.Progress) {
			if emit(StorageEvent{Progress: &p}) != nil {
				cancel() // nobody waits for it any more
			}
		})
		if err != nil {
			return emit(StorageEvent{Error: describe(err)})
		}
		return emit(StorageEvent{Done: &done})
	})
}

func (s *Server) recoverStore(ctx context.Context, in RecoverStore) error {
	switch in.Action {
	case "identity":
		return s.engine.RestoreStorageKey(ctx)
	case "start-over":
		_, err := s.engine.Storage.StartOver(ctx)
		return err
	case "retry":
		if in.Store == "" {
			return s.engine.Storage.Prewarm(ctx)
		}
		return s.engine.Storage.Retry(ctx, in.Store)
	case "reset":
		return s.engine.ResetStore(ctx, in.Store)
	case "accept":
		return s.engine.Storage.Accept(ctx, in.Store)
	}
	return fault.WithText(fault.Usage, "stores are recovered by retry, reset, accept, identity or start-over")
}

func (s *Server) operate(ctx context.Context, in StorageOrder, progress func(storage.Progress)) (StorageDone, error) {
	st := s.engine.Storage
	switch in.What {
	case "rotate":
		r, err := s.engine.RotateStorage(ctx, in.FromMaster, progress)
		return StorageDone{NewKeyID: r.New.String(), Stores: r.Stores, Files: r.Files, Unread: r.Left}, err
	case "encrypt":
		return converted(st.SetPosture(ctx, storage.PostureEncrypted, progress))
	case "decrypt":
		return converted(st.SetPosture(ctx, storage.PosturePlaintext, progress))
	case "verify":
		issues, files, err := st.VerifyAll(ctx, progress)
		return StorageDone{Issues: storeIssues(issues), Unread: files}, err
	case "export":
		done, err := s.engine.ExportStorage(ctx, in.Dest, in.Tar, in.Recipients, progress)
		return StorageDone{Path: done.Path, Stores: done.Counts[archive.Database], Files: done.Counts[archive.Config], Attachments: done.Counts[archive.Blob], Bytes: done.Bytes, Missing: Missing(done.Failed)}, err
	case "maintain":
		return StorageDone{}, st.Maintain(ctx, true)
	}
	return StorageDone{}, fault.WithText(fault.Usage, "no such operation")
}

// Missing names what an export does not hold, and why.
func Missing(items []archive.Item) []string {
	var list []string
	for _, it := range items {
		list = append(list, it.Path+": "+it.Error)
	}
	return list
}

func converted(c storage.Conversion, err error) (StorageDone, error) {
	return StorageDone{Converted: c.Converted, Issues: storeIssues(c.Issues)}, err
}

func storeIssues(issues []storage.Issue) []StoreIssue {
	var list []StoreIssue
	for _, i := range issues {
		list = append(list, StoreIssue{i.Store, i.Kind})
	}
	return list
}

// Storage looks at the stores.
func (c *Client) Storage(ctx context.Context) (storage.Status, error) {
	return call[storage.Status](ctx, c, "storage/status", Empty{})
}

// Quarantine lists what was set aside.
func (c *Client) Quarantine(ctx context.Context) ([]storage.Quarantined, error) {
	return call[[]storage.Quarantined](ctx, c, "storage/quarantine", Empty{})
}

// Maintained tells when each store was last looked after.
func (c *Client) Maintained(ctx context.Context) ([]storage.Maintained, error) {
	return call[[]storage.Maintained](ctx, c, "storage/maintained", Empty{})
}

// SettleRemains deletes or keeps what an older host left.
type SettleRemains struct {
	Path string `json:"path"`
	Keep bool   `json:"keep"`
}

// Remains lists what an older host left unencrypted.
func (c *Client) Remains(ctx context.Context) ([]storage.Remains, error) {
	return call[[]storage.Remains](ctx, c, "storage/remains", Empty{})
}

// SettleRemains deletes or keeps it.
func (c *Client) SettleRemains(ctx context.Context, in SettleRemains) error {
	_, err := call[Empty](ctx, c, "storage/settle", in)
	return err
}

// RecoverStore retries, resets or accepts a store.
func (c *Client) RecoverStore(ctx context.Context, r RecoverStore) error {
	_, err := call[Empty](ctx, c, "storage/recover", r)
	return err
}

// ErrCutOff says that the host went away during an operation. It goes on, or
// undoes what it had begun, at its next start.
var ErrCutOff = errors.New("the host went away during the operation")

// OperateStorage runs an operation and reports its progress.
func (c *Client) OperateStorage(ctx context.Context, in StorageOrder, progress func(storage.Progress)) (StorageDone, error) {
	var done *StorageDone
	err := stream(ctx, c, "storage/operate", in, func(ev StorageEvent) error {
		switch {
		case ev.Error != nil:
			return ev.Error
		case ev.Done != nil:
			done = ev.Done
		case ev.Progress != nil:
			progress(*ev.Progress)
		}
		return nil
	})
	if err == nil && done == nil {
		err = ErrCutOff
	}
	if err != nil {
		return StorageDone{}, err
	}
	return *done, nil
}

// Remember names an agent and a text: what to remember, or to look for.
type Remember struct {
	Agent string `json:"agent,omitempty"`
	Text  string `json:"text,omitempty"`
	Limit int    `json:"limit,omitempty"`
}

// AddFact has an agent remember a text.
func (c *Client) AddFact(ctx context.Context, r Remember) (memory.Fact, error) {
	return call[memory.Fact](ctx, c, "memory/add", r)
}

// Facts lists what an agent was told to remember; "" lists all agents'.
func (c *Client) Facts(ctx context.Context, r Remember) ([]memory.Fact, error) {
	return call[[]memory.Fact](ctx, c, "memory/list", r)
}

// QueryMemory looks for a text in what an agent remembers.
func (c *Client) QueryMemory(ctx context.Context, r Remember) ([]memory.Found, error) {
	return call[[]memory.Found](ctx, c, "memory/query", r)
}

// ForgetFact deletes a fact.
func (c *Client) ForgetFact(ctx context.Context, id string) error {
	_, err := call[Empty](ctx, c, "memory/forget", ID{id})
	return err
}

// ChatFilter narrows a list of chats; Text is looked for in titles and turns.
type ChatFilter struct {
	AgentID  string `json:"agent_id,omitempty"`
	Text     string `json:"text,omitempty"`
	Archived bool   `json:"archived,omitempty"`
	Limit    int    `json:"limit,omitempty"`
}

// Chat is a conversation as its owner sees it.
type Chat struct {
	ID       string     `json:"id"`
	Title    string     `json:"title"`
	AgentID  string     `json:"agent_id,omitempty"`
	Source   string     `json:"source"`
	Updated  time.Time  `json:"updated"`
	Turns    int        `json:"turns"`
	Messages []ChatTurn `json:"messages,omitempty"`
}

// ChatTurn is one message of a Chat.
type ChatTurn struct {
	Role        string    `json:"role"`
	Content     string    `json:"content"`
	Created     time.Time `json:"created,omitzero"`
	Attachments int       `json:"attachments,omitempty"`
}

func (s *Server) loadChat(ctx context.Context, id string) (chats.Session, error) {
	c, err := s.engine.Chats.Load(ctx, id)
	if errors.Is(err, fault.NotFound) {
		err = fault.WithText(fault.Usage, "no conversation has this id")
	}
	return c, err
}

func chat(s chats.Session) Chat {
	c := Chat{ID: s.ID, Title: s.Title, AgentID: s.AgentID, Source: s.Source, Updated: s.UpdatedAt, Turns: s.TurnCount}
	for _, t := range s.Turns {
		c.Messages = append(c.Messages, ChatTurn{Role: t.Role, Content: t.Content, Created: t.CreatedAt, Attachments: len(t.Attachments)})
	}
	return c
}

// Chats lists conversations, last changed first.
func (c *Client) Chats(ctx context.Context, f ChatFilter) ([]Chat, error) {
	return call[[]Chat](ctx, c, "chats/list", f)
}

// Chat returns a conversation with its turns.
func (c *Client) Chat(ctx context.Context, id string) (Chat, error) {
	return call[Chat](ctx, c, "chats/show", ID{id})
}

// DeleteChat deletes a conversation and the attachments only it has.
func (c *Client) DeleteChat(ctx context.Context, id string) error {
	_, err := call[Empty](ctx, c, "chats/delete", ID{id})
	return err
}
