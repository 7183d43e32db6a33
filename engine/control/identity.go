package control

import (
	"context"
	"slices"
	"time"

	"osaurus/engine/fault"
	"osaurus/engine/identity"
	"osaurus/engine/secret"
)

func (s *Server) identityOps() {
	e := s.engine
	op(s, "identity/show", func(ctx context.Context, _ Empty) (Identity, error) { return s.identity(ctx) })
	op(s, "identity/pairing", s.pairingIdentity)
	op(s, "identity/create", s.createIdentity)
	op(s, "identity/phrase", func(ctx context.Context, _ Empty) (NewIdentity, error) {
		phrase, err := e.Account.Phrase(ctx)
		if err != nil {
			return NewIdentity{}, err
		}
		defer phrase.Destroy()
		return NewIdentity{Address: e.Account.Address(), Phrase: string(phrase.Expose())}, nil
	})
	do(s, "identity/acknowledge", func(ctx context.Context, _ Empty) error { return e.Account.Acknowledge(ctx) })
	op(s, "identity/restore", s.restoreIdentity)
	do(s, "identity/confirm", func(ctx context.Context, _ Empty) error { return e.Account.ConfirmReplacement(ctx) })
	op(s, "identity/undo", s.undoReplacement)
	op(s, "identity/token/mint", s.mintToken)
	op(s, "identity/token/verify", s.verifyToken)
	do(s, "identity/reset", func(ctx context.Context, _ Empty) error { return e.Agents.Reset(ctx) })
	op(s, "identity/drift", s.drift)
	op(s, "identity/health", func(context.Context, Empty) (Drift, error) { return s.health(), nil })
	op(s, "identity/repair", s.repair)
	do(s, "keystore/passphrase", s.setPassphrase)
}

func (s *Server) identity(ctx context.Context) (Identity, error) {
	st, err := s.engine.Account.Status(ctx)
	return Identity{State: st.State.String(), Address: st.Address, Created: st.Created, Acknowledged: st.Acknowledged, Replaced: st.Replaced, DeviceID: st.Device.ID, DeviceName: st.Device.Name, Hardware: st.Device.Hardware}, err
}

func (s *Server) pairingIdentity(ctx context.Context, _ Empty) (Identity, error) {
	out, err := s.identity(ctx)
	if err != nil {
		return out, err
	}
	key, err := s.engine.PairingKey(ctx)
	if err != nil {
		return out, err
	}
	defer key.Destroy()
	out.Pairing = key.Address()
	return out, nil
}

func (s *Server) createIdentity(ctx context.Context, _ Empty) (NewIdentity, error) {
	created, err := s.engine.CreateIdentity(ctx)
	if created.Address.IsZero() {
		return NewIdentity{}, err
	}
	defer created.Phrase.Destroy()
	defer created.RecoveryCode.Destroy()
	return NewIdentity{Address: created.Address, Phrase: string(created.Phrase.Expose()), RecoveryCode: string(created.RecoveryCode.Expose())}, err
}

func (s *Server) restoreIdentity(ctx context.Context, in Restore) (Identity, error) {
	phrase := secret.New([]byte(in.Phrase))
	defer phrase.Destroy()
	if _, err := s.engine.Agents.Restore(ctx, phrase, in.Anyway); err != nil {
		return Identity{}, err
	}
	id, err := s.identity(ctx)
	id.Forgetful = !s.engine.Keys.Remembers()
	return id, err
}

func (s *Server) undoReplacement(ctx context.Context, _ Empty) (Identity, error) {
	if _, err := s.engine.Account.UndoReplacement(ctx); err != nil {
		return Identity{}, err
	}
	if err := s.engine.Unlock(ctx); err != nil {
		return Identity{}, err
	}
	return s.identity(ctx)
}

func (s *Server) mintToken(ctx context.Context, in MintToken) (RequestToken, error) {
	id := ""
	if in.Agent != "" {
		a, err := s.find(in.Agent)
		if err != nil {
			return RequestToken{}, err
		}
		id = a.ID
	}
	if in.Audience == "" {
		in.Audience = s.engine.HostName()
	}
	token, err := s.engine.MintRequestToken(ctx, id, in.Audience, in.Action)
	if err != nil {
		return RequestToken{}, err
	}
	defer token.Destroy()
	return RequestToken{Token: string(token.Expose()), Audience: in.Audience, Action: in.Action}, nil
}

func (s *Server) verifyToken(ctx context.Context, in RequestToken) (RequestToken, error) {
	c, err := s.engine.VerifyRequestToken(ctx, in.Token, in.Action)
	if err != nil {
		return RequestToken{}, err
	}
	return RequestToken{Action: c.Action, Issuer: c.Issuer, Device: c.Device, Counter: c.Counter, Audience: c.Audience, Expires: time.Unix(c.Expires, 0).UTC()}, nil
}

func named(a identity.AgentRef) NamedAgent { return NamedAgent{a.ID, a.Name} }

// drift renews the check, which reads the master.
func (s *Server) drift(ctx context.Context, _ Empty) (Drift, error) {
	if err := s.engine.Unlock(ctx); err != nil {
		return Drift{}, err
	}
	return s.health(), nil
}

// health is what the last check found; the owner is asked nothing.
func (s *Server) health() Drift {
	h := s.engine.Agents.Health()
	out := Drift{Mismatched: []NamedAgent{}, StaleKeys: []string{}, ScopesRestored: h.ScopesRestored}
	for _, a := range h.Drift.Mismatched {
		out.Mismatched = append(out.Mismatched, named(a))
	}
	for _, k := range h.Drift.StaleKeys {
		out.StaleKeys = append(out.StaleKeys, k.ID)
	}
	return out
}

// repair acts on the drift that the owner was shown, and on no other.
func (s *Server) repair(ctx context.Context, shown Drift) (Repaired, error) {
	now, err := s.drift(ctx, Empty{})
	if err != nil {
		return Repaired{}, err
	}
	if !slices.Equal(now.Mismatched, shown.Mismatched) || !slices.Equal(now.StaleKeys, shown.StaleKeys) {
		return Repaired{}, fault.WithText(fault.NeedsConfirmation, "what does not belong to the identity has changed; look again: osaurus identity drift")
	}
	done, err := s.engine.Agents.Repair(ctx, s.engine.Agents.Health().Drift)
	out := Repaired{Moved: []NamedAgent{}, Failed: []string{}, KeysRevoked: done.KeysRevoked}
	for _, a := range done.Moved {
		out.Moved = append(out.Moved, NamedAgent{a.ID, a.Name})
	}
	for _, f := range done.Failed {
		out.Failed = append(out.Failed, f.Name+": "+f.Err.Error())
	}
	return out, err
}

// setPassphrase seals a keystore that knows passphrases.
func (s *Server) setPassphrase(_ context.Context, in Passphrase) error {
	store, ok := s.engine.Keystore().(interface{ SetPassphrase(secret.Bytes) error })
	if !ok {
		return fault.WithText(fault.Unsupported, "this keystore is sealed by the system and takes no passphrase")
	}
	p := secret.New([]byte(in.Passphrase))
	defer p.Destroy()
	if err := store.SetPassphrase(p); err != nil {
		return err
	}
	s.engine.Event("keystore_passphrase_changed")
	return nil
}
