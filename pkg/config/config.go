// Package config is every flag and CRANK_* variable of crank, in one table, and reads them.
package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/kelseyhightower/envconfig"

	"github.com/crankctl/crank/pkg/profile"
)

// prefix is envconfig's; every variable begins with it and an underscore.
const prefix = "CRANK"

// Config is what crank was told. Fields are in the order of the table, which says what they mean;
// a field's name is its variable's without CRANK_. envconfig tags would make it read a variable
// without the prefix too, hence none.
type Config struct {
	Bind        Binds
	StdinSocket Switch `split_words:"true"`
	ListenPID   Switch `split_words:"true"`
	Profile     string

	StartTimeout    Seconds `split_words:"true"`
	Settle          Seconds
	Ready           string  // never "": the default depends on Bind
	ReadyInterval   Seconds `split_words:"true"`
	ReadyTimeout    Seconds `split_words:"true"`
	Check           string
	MaxExtend       Seconds `split_words:"true"`
	Watchdog        string
	WatchdogTimeout Seconds `split_words:"true"`
	MemoryCheck     string  `split_words:"true"`

	StopTimeout Seconds    `split_words:"true"`
	StopSignal  StopSignal `split_words:"true"`
	StopOn      StopOn     `split_words:"true"`
	DrainDelay  Seconds    `split_words:"true"`
	MaxDraining Count      `split_words:"true"`
	Group       Switch
	Rewrite     Rewrites
	HUP         string // never "": the default depends on Bind
	Restart     string
	OKCodes     Codes `split_words:"true"`

	Name           string
	Prefix         string // as given, see ResolvePrefix
	Conf           string // as given, see ConfPath
	Ctl            string // as given, see CtlAddress
	CtlReadonly    Switch `split_words:"true"`
	Cwd            string // as given
	HTTP           string
	NotifyParent   Switch `split_words:"true"`
	NoNewPrivs     Switch `split_words:"true"`
	TerminationLog string `split_words:"true"`

	Output    string
	Redact    string
	LogFormat string `split_words:"true"`
	LogLevel  Count  `split_words:"true"`

	Help    bool   `ignored:"true"` // asked for: nothing else counts
	Version bool   `ignored:"true"` // likewise
	Install string `ignored:"true"` // the directory to install into, and exit

	Command  []string          `ignored:"true"` // what follows the flags
	Preset   profile.Profile   `ignored:"true"` // what Profile names; its settings are in this Config already
	Explicit map[string]Source `ignored:"true"` // where each setting came from, by flag name; Default: also from the profile
	Warnings []string          `ignored:"true"` // for the log: variables that mean nothing to crank
}

// Source is where a setting's value came from.
type Source int

// The sources; a later one replaces an earlier one.
const (
	Default Source = iota
	Variable
	Flag
)

func (s Source) String() string { return [...]string{"default", "variable", "flag"}[s] }

// Load reads the flags in args, which follow the program's name, and the CRANK_* variables of the
// process. A variable that is empty counts as not set; a flag that is empty does not.
//
// An error names the flag or variable, its value, and what is accepted instead: crank then exits
// 125. Where Help or Version is true, or Profile is ProfileHelp, nothing else in the Config counts.
func Load(args []string) (Config, error) {
	c := defaults()
	envErr := c.loadEnvironment() // reported last: -help must work whatever is set
	if err := c.loadFlags(args); err != nil || c.Help || c.Version || c.Profile == ProfileHelp {
		return c, err
	}
	if envErr != nil {
		return c, envErr
	}
	if err := c.check(); err != nil {
		return c, err
	}
	c.applyProfile()
	c.derive()
	c.Warnings = unknownVariables(os.Environ())
	return c, nil
}

// defaults returns what holds without any flag or variable.
func defaults() Config {
	c := Config{Explicit: map[string]Source{}}
	for _, s := range settings {
		if s.Default == "" {
			continue
		}
		if err := s.value(&c).Set(s.Default); err != nil {
			panic(fmt.Sprintf("default of -%s: %v", s.Flag, err)) // a bug, and a test finds it
		}
	}
	return c
}

func (c *Config) loadEnvironment() error {
	if !slices.ContainsFunc(settings, func(s Setting) bool { return s.Var != "" && os.Getenv(s.Var) != "" }) {
		return nil // envconfig takes as long for nothing as for all
	}
	err := envconfig.Process(prefix, c)
	if parseErr, ok := errors.AsType[*envconfig.ParseError](err); ok {
		err = invalid(parseErr.Value, parseErr.KeyName, parseErr.Err)
	}
	for _, s := range settings {
		if s.Var == "" {
			continue
		}
		if os.Getenv(s.Var) != "" {
			c.Explicit[s.Flag] = Variable
		} else if text, ok := s.field(c).(*string); ok {
			*text = s.Default // envconfig set it to the empty value
		}
	}
	return err
}

func (c *Config) loadFlags(args []string) error {
	flags := flag.NewFlagSet("crank", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	for _, s := range settings {
		if s.field != nil {
			flags.Var(given{s.value(c), s.Flag, c.Explicit}, s.Flag, "")
		}
	}
	err := flags.Parse(args)
	c.Command = flags.Args()
	switch {
	case err == nil && valueOfSwitch(flags, args):
		return fmt.Errorf("%s takes no value after a space: write %[1]s or %[1]s=%s", args[len(args)-flags.NArg()-1], flags.Arg(0))
	case errors.Is(err, flag.ErrHelp): // -h and -help, which flags does not define
		c.Help = true
		return nil
	case err == nil:
		return nil
	}
	if name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); ok {
		return fmt.Errorf("unknown flag -%s%s (crank -help lists the flags)", name, didYouMean(suggestFlag(name)))
	}
	return fmt.Errorf("%w (crank -help says more)", err)
}

// valueOfSwitch reports whether "-x true -- app" was written, which would run true(1) with the app as its arguments.
func valueOfSwitch(flags *flag.FlagSet, args []string) bool {
	before := len(args) - flags.NArg() - 1
	if before < 0 || flags.NArg() < 2 || flags.Arg(0) != "true" && flags.Arg(0) != "false" || !slices.Contains(flags.Args(), "--") {
		return false
	}
	last := flags.Lookup(strings.TrimLeft(args[before], "-"))
	if last == nil {
		return false
	}
	lone, ok := last.Value.(interface{ IsBoolFlag() bool })
	return ok && lone.IsBoolFlag() && strings.HasPrefix(args[before], "-")
}

// given notes that its flag was given, and has the first one replace what the variable said.
type given struct {
	flag.Value
	name     string
	explicit map[string]Source
}

func (g given) Set(text string) error {
	if binds, ok := g.Value.(*Binds); ok && g.explicit[g.name] != Flag {
		*binds = nil
	}
	g.explicit[g.name] = Flag
	return g.Value.Set(text)
}

// IsBoolFlag tells the flag package that -x alone means true.
func (g given) IsBoolFlag() bool {
	b, ok := g.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

// check looks at what was given, whichever way, for what the types do not see already.
func (c *Config) check() error {
	for _, s := range settings {
		source := c.Explicit[s.Flag]
		if source == Default {
			continue
		}
		text := s.value(c).String()
		if s.accept == nil {
			continue
		}
		if err := s.accept(text); err != nil {
			if s.Secret {
				text = hidden
			}
			return invalid(text, s.called(source), err)
		}
	}
	if len(c.Command) > 0 && c.Command[0] == "" {
		return errors.New("the command is empty: its first word says what to execute (is a variable not set?)")
	}
	if c.StdinSocket && len(c.Bind) == 0 {
		return errors.New("-stdin-socket (CRANK_STDIN_SOCKET) needs a -bind: there is no socket to pass as descriptor 0")
	}
	return nil
}

// derive fills in the defaults that depend on other settings.
func (c *Config) derive() {
	ready, hup := "none", "forward"
	if len(c.Bind) > 0 {
		ready, hup = "notify", "swap"
	}
	if c.Ready == "" {
		c.Ready = ready
	}
	if c.HUP == "" {
		c.HUP = hup
	}
	if c.Explicit["notify-parent"] == Default {
		c.NotifyParent = os.Getenv("NOTIFY_SOCKET") != "" && os.Getpid() != 1
	}
}

// hidden stands for what is not shown.
const hidden = "***"

// Idle reports whether crank was given no command, and no setting by flag or variable. The format of output and log does not count,
// since it does not identify an instance. crank then runs nothing: a saved command may be another person's.
func (c Config) Idle() bool {
	return len(c.Command) == 0 && !slices.ContainsFunc(settings, func(s Setting) bool {
		return s.Group != groupOutput && c.Explicit[s.Flag] != Default
	})
}

// Redactor returns what shows the words of a command: those that -redact matches, anywhere in the word, are "***".
func (c Config) Redactor() func(words []string) []string {
	if c.Redact == "" {
		return func(words []string) []string { return words }
	}
	secret := regexp.MustCompile(c.Redact) // Load has looked at it
	return func(words []string) []string {
		shown := slices.Clone(words)
		for i, word := range shown {
			if secret.MatchString(word) {
				shown[i] = hidden
			}
		}
		return shown
	}
}

// Settings returns every setting that is not at its default, by flag name, in a form that the flag
// takes back; what may hold a secret, and what -redact matches, is shown as "***".
func (c Config) Settings() map[string]string {
	redacted := c.Redactor()
	base := defaults()
	base.Bind = c.Bind
	base.derive()
	base.Bind = nil
	changed := map[string]string{}
	for _, s := range settings {
		if s.Var == "" {
			continue
		}
		text := s.value(&c).String()
		if text == s.value(&base).String() {
			continue
		}
		if s.Secret {
			text = hidden
		}
		changed[s.Flag] = redacted([]string{text})[0]
	}
	return changed
}

// Variables returns the names of all variables that are settings of crank.
func Variables() []string {
	var names []string
	for _, s := range settings {
		if s.Var != "" {
			names = append(names, s.Var)
		}
	}
	return names
}

// called is what a person typed.
func (s *Setting) called(source Source) string {
	if source == Variable {
		return s.Var
	}
	return "-" + s.Flag
}

// invalid is worded as the flag package words it.
func invalid(value, name string, why error) error {
	return fmt.Errorf("invalid value %q for %s: %w", value, name, why)
}

// list returns "a, b or c".
func list(values []string, word string) string {
	last := len(values) - 1
	if last <= 0 {
		return strings.Join(values, "")
	}
	return strings.Join(values[:last], ", ") + " " + word + " " + values[last]
}
