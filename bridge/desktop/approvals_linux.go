package desktop

import (
	"context"
	"fmt"
	"time"

	"osaurus/engine/control"
	"osaurus/engine/pairing"
)

// Host is what Approvals needs of a host; control.Client is one.
type Host interface {
	WatchApprovals(ctx context.Context, each func(control.Approvals) error) error
	Answer(ctx context.Context, a control.Answer) error
}

// Actions of a request to pair.
const (
	actionDefault = "default"
	actionReview  = "review"
	actionDeny    = "deny"
)

// Approvals shows each request to pair that waits, with Review and Deny
// alone (decisions C22), until ctx ends or the host is gone. Review calls
// review, which shows the request where it can be approved.
func (n *Notifier) Approvals(ctx context.Context, host Host, review func(pairing.Prompt)) error {
	var id string
	remove := func() {}
	defer func() { remove() }()
	return host.WatchApprovals(ctx, func(s control.Approvals) error {
		current := ""
		if s.Current != nil {
			current = s.Current.ID
		}
		if current == id {
			return nil
		}
		remove()
		id, remove = current, func() {}
		if s.Current == nil {
			return nil
		}
		prompt := *s.Current
		shown, err := n.Show(ctx, request(prompt), func(action string) { answer(ctx, host, prompt, action, review) })
		if err != nil {
			return err
		}
		remove = shown
		return nil
	})
}

func request(p pairing.Prompt) Notice {
	return Notice{
		Title: "Somebody asks to talk to " + p.AgentName, Text: fmt.Sprintf("%s, from %s. Review it before you decide.", p.Connector, p.Source),
		Actions: []Action{{actionDefault, "Review"}, {actionReview, "Review"}, {actionDeny, "Deny"}}, Lasts: time.Until(p.Expires), Urgent: true,
	}
}

func answer(ctx context.Context, host Host, p pairing.Prompt, action string, review func(pairing.Prompt)) {
	switch action {
	case actionDeny:
		_ = host.Answer(ctx, control.Answer{ID: p.ID, Validity: pairing.Deny.String()}) // one that ended is an error
	case actionDefault, actionReview:
		review(p)
	}
}
