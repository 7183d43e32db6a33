package panes

import (
	"strings"
	"sync"

	"osaurus/engine/secret"
)

// Pane names one of the panes.
type Pane string

// The panes, in the order in which they are offered.
const (
	Identity Pane = "identity"
	Agents   Pane = "agents"
	Peers    Pane = "peers"
	Storage  Pane = "storage"
	Requests Pane = "requests"
)

// All lists the panes in their order.
var All = []Pane{Identity, Storage, Agents, Peers, Requests}

// Tone is how much a thing matters to the person who reads it.
type Tone string

// The tones. Plain is the zero value.
const (
	Plain  Tone = ""
	Good   Tone = "good"
	Warn   Tone = "warn"
	Danger Tone = "danger"
)

// View is a pane as it is to be drawn, from top to bottom. A renderer draws
// all of it, in this order, and decides nothing. What it holds is a copy,
// except for secrets, which vanish from every copy when they are dismissed.
type View struct {
	Pane     Pane
	Title    string
	Intro    string
	Banners  []Banner
	Sections []Section
	Sheet    *Sheet    // in front of every pane; nothing behind it can be used
	Working  *Working  // the operation that runs, shown on every pane
	Approval *Approval // the request that waits, shown in front of everything
	Tabs     []Tab
}

// Tab leads to a pane.
type Tab struct {
	Pane  Pane
	Title string
	Count int // things that wait there
}

// Banner stands above everything else of a pane.
type Banner struct {
	ID      string
	Tone    Tone
	Title   string
	Text    string
	Lines   []string // errors, one a line; free of secrets, to be copied
	Actions []Action
}

// Section is a titled group of rows.
type Section struct {
	ID      string
	Title   string
	Caption string
	Facts   []Fact
	Rows    []Row
	Empty   string // shown when there are no rows
	Actions []Action
	Tone    Tone
}

// Row is one thing in a list. What is below it shows when it is opened.
type Row struct {
	ID      string
	Title   string
	Text    string
	Address string // in full; selectable
	Short   string // the address with its middle left out
	Badges  []Badge
	Facts   []Fact
	Actions []Action
	Rows    []Row
	Empty   string // shown in place of no Rows
}

// Fact is a labelled value.
type Fact struct {
	Label string
	Value string
	Mono  bool // in a font of fixed width
	Copy  bool // offers to copy Value, and says so when it was
}

// Badge is a word or two that stand out.
type Badge struct {
	Text string
	Tone Tone
}

// Effect is something only the renderer's system can do. The action itself is
// not sent to the model.
type Effect string

// The effects.
const (
	CopyText   Effect = "copy"   // Action.Text to the pasteboard
	CopySecret Effect = "secret" // the sheet's secret to the pasteboard; cleared after ClearAfter if it is still there
	Print      Effect = "print"  // the sheet
	Paste      Effect = "paste"  // the pasteboard into Field
	Go         Effect = "go"     // to the pane named by Text
)

// Action is something a person may do. Its ID is given back to Model.Do.
type Action struct {
	ID      string
	Label   string
	Tone    Tone // Danger for what cannot be undone
	Primary bool // what most people come for; at most one in a group
	Off     bool // shown, and does nothing now
	Effect  Effect
	Text    string // of the effect
	Field   string // of Paste
}

// FieldKind says how a field is filled in.
type FieldKind string

// The kinds of fields.
const (
	Line    FieldKind = "line"
	Lines   FieldKind = "lines" // several, as a phrase is pasted
	Choice  FieldKind = "choice"
	Folder  FieldKind = "folder" // AppKit offers an open panel, the page a line
	NewFile FieldKind = "file"   // AppKit offers a save panel, the page a line
)

// Field is asked for in a sheet. A Sensitive value is never kept by the model
// nor put back into a view.
type Field struct {
	Name      string
	Label     string
	Hint      string
	Kind      FieldKind
	Value     string
	Options   []Option
	Sensitive bool
	Live      bool // Model.Check has something to say about it while it is typed
}

// Option is one choice of a field.
type Option struct {
	Value   string
	Label   string
	Caption string
}

// Sheet asks for a confirmation, a few values, or shows a secret once. ID
// differs for every sheet that opens.
type Sheet struct {
	ID      string
	Kind    string
	Tone    Tone
	Title   string
	Text    []string
	Facts   []Fact
	Fields  []Field
	Secret  *Secret
	QR      bool // draw the secret as a QR code beside its text
	Error   string
	Busy    bool
	Actions []Action // the last one leaves without doing anything
}

// Working is the operation that runs. Done and Total are bytes; Total is 0
// while it is unknown.
type Working struct {
	Title       string
	Text        string
	Done, Total int64
	Cancel      *Action
}

// Secret is shown once: a phrase, or an access key. Its text is gone from
// every view as soon as the sheet is dismissed. It is safe for concurrent use.
type Secret struct {
	Label string
	Code  *Secret // the recovery code beside the phrase

	mu   sync.Mutex
	text secret.Bytes
}

func newSecret(label, text string) *Secret {
	return &Secret{Label: label, text: secret.New([]byte(text))}
}

// Text returns the secret, "" once it was dismissed. The string must not be
// kept.
func (s *Secret) Text() string {
	if s == nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.text.Expose())
}

// Words returns the words of a phrase, nil for anything else.
func (s *Secret) Words() []string {
	if w := strings.Fields(s.Text()); len(w) > 1 {
		return w
	}
	return nil
}

// dismiss destroys the secret in every copy.
func (s *Secret) dismiss() {
	if s == nil {
		return
	}
	s.Code.dismiss()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Destroy()
	s.text = secret.Bytes{}
}
