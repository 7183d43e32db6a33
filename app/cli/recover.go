package cli

import (
	"context"

	"github.com/spf13/cobra"

	"osaurus/engine/control"
	"osaurus/engine/storage"
)

// recovery is one way to recover: a flag, what the host is asked for, and what
// the owner confirms. forAll ways speak of the key, the others of one store.
type recovery struct {
	flag, action, question, usage string
	forStore, forAll              bool
}

var recoveries = []recovery{
	{"retry", "retry", "", "ask the keystore again and open the store", true, true},
	{"reset", "reset", "The store is set aside under quarantine/ and starts empty.", "set the store aside, deleting nothing, and start empty", true, false},
	{"accept", "accept", "The plaintext file is taken for yours and encrypted.", "take a plaintext file that appeared for yours", true, false},
	{"from-identity", "identity", "", "the key is missing: derive it again, after a rotation --from-identity", false, true},
	{"start-over", "start-over", "Everything that needs the missing key is set aside under quarantine/, and a new key is made.", "the key is lost for good: set everything aside, deleting nothing, and make a new one", false, true},
}

func (a *app) recoverStore() *cobra.Command {
	chosen := make([]bool, len(recoveries))
	c := command("", "recover [STORE]", "Open a store that stays closed, set it aside, or bring back the key", "  osaurus storage recover memory --retry\n  osaurus storage recover memory --reset\n  osaurus storage recover --from-identity", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		var store storage.ID
		example := "osaurus storage recover --retry"
		if len(args) == 1 {
			store = storage.ID(args[0])
			example = "osaurus storage recover " + args[0] + " --retry"
		}
		way, err := chooseRecovery(chosen, store, example)
		if err != nil {
			return err
		}
		if way.question != "" {
			if err := a.confirm(way.question); err != nil {
				return err
			}
		}
		return a.withHost(ctx, func(ctx context.Context, c *control.Client) error {
			return c.RecoverStore(ctx, control.RecoverStore{Store: store, Action: way.action})
		})
	})
	for i, way := range recoveries {
		c.Flags().BoolVar(&chosen[i], way.flag, false, way.usage)
	}
	return c
}

func chooseRecovery(chosen []bool, store storage.ID, example string) (recovery, error) {
	var ways []recovery
	for i, way := range recoveries {
		if chosen[i] {
			ways = append(ways, way)
		}
	}
	switch {
	case len(ways) == 0:
		return recovery{}, usage(example, "say --retry, --reset or --accept, or without a store --from-identity or --start-over")
	case len(ways) > 1:
		return recovery{}, usage(example, "one way to recover at a time")
	case store == "" && !ways[0].forAll:
		return recovery{}, usage("osaurus storage status", "name the store to recover with --%s", ways[0].flag)
	case store != "" && !ways[0].forStore:
		return recovery{}, usage("osaurus storage recover --"+ways[0].flag, "--%s is for all stores at once: name none", ways[0].flag)
	}
	return ways[0], nil
}
