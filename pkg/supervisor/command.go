package supervisor

import (
	"slices"
	"strings"
	"time"
)

// Command is what a generation runs. It holds only what was asked for: a zero Start or Stop means
// crank's own setting, an empty Dir the one of crank's -cwd.
type Command struct {
	Argv []string `json:"command"`
	Dir  string   `json:"cwd,omitempty"`
	// Env holds changes to crank's own environment, applied in order: "K=V" sets, "K-" removes.
	Env   []string      `json:"env,omitempty"`
	Start time.Duration `json:"start,omitempty"` // ready within this time
	Stop  time.Duration `json:"stop,omitempty"`  // gone within this time once asked to drain
}

// IsZero reports whether there is no command at all.
func (c Command) IsZero() bool { return len(c.Argv) == 0 }

// Equal reports whether both would run the same thing in the same way.
func (c Command) Equal(d Command) bool {
	return slices.Equal(c.Argv, d.Argv) && c.Dir == d.Dir && slices.Equal(c.Env, d.Env) &&
		c.Start == d.Start && c.Stop == d.Stop
}

// Change is what a request gives; what it leaves out is kept from the command it changes.
type Change Command

// Apply returns base with the change made.
func (ch Change) Apply(base Command) Command {
	c := base
	if len(ch.Argv) > 0 {
		c.Argv = slices.Clone(ch.Argv)
	}
	if ch.Dir != "" {
		c.Dir = ch.Dir
	}
	c.Env = mergeEnv(base.Env, ch.Env)
	if ch.Start != 0 {
		c.Start = ch.Start
	}
	if ch.Stop != 0 {
		c.Stop = ch.Stop
	}
	return c
}

// mergeEnv appends changes to base, and drops what a later change of the same variable overrides.
func mergeEnv(base, changes []string) []string {
	var merged []string
	for _, change := range slices.Concat(base, changes) {
		key := EnvKey(change)
		merged = slices.DeleteFunc(merged, func(old string) bool { return EnvKey(old) == key })
		merged = append(merged, change)
	}
	return merged
}

// EnvKey returns the variable that an entry of Command.Env changes.
func EnvKey(change string) string {
	if key, _, ok := strings.Cut(change, "="); ok {
		return key
	}
	return strings.TrimSuffix(change, "-")
}

// NoEnvChange reports whether an entry is nothing that Command.Env may hold. Who complains of it does not quote it: it may be a
// secret.
func NoEnvChange(entry string) bool {
	key := EnvKey(entry)
	return key == "" || key == entry
}
