package control

import (
	"context"

	"osaurus/engine/pairing"
)

func (s *Server) approvalOps() {
	q := s.engine.Approval
	op(s, "approvals/list", func(context.Context, Empty) (Approvals, error) {
		current, last, _ := q.Current()
		return approvals(current, last), nil
	})
	lines(s, "approvals/watch", func(ctx context.Context, _ Empty, emit func(Approvals) error) error {
		defer q.Attach()()
		for {
			current, last, changed := q.Current()
			if err := emit(approvals(current, last)); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			}
		}
	})
	do(s, "approvals/answer", func(_ context.Context, in Answer) error {
		v, err := pairing.ParseValidity(in.Validity)
		if err != nil {
			return err
		}
		return q.Answer(in.ID, v)
	})
}

func approvals(current *pairing.Prompt, last pairing.Outcome) Approvals {
	a := Approvals{Current: current}
	if last.Reason != "" {
		a.Last, a.Answer = &last, last.Validity.String()
	}
	return a
}
