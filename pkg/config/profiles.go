package config

import (
	"fmt"
	"strings"

	"github.com/crankctl/crank/pkg/profile"
)

// ProfileHelp in the place of a profile's name asks for the table of profiles.
const ProfileHelp = "help"

// applyProfile sets what the profile says and nobody else did.
func (c *Config) applyProfile() {
	c.Preset, _ = profile.Find(c.Profile)
	for _, p := range c.Preset.Settings {
		if c.Explicit[p.Flag] != Default {
			continue
		}
		if err := find(p.Flag).value(c).Set(p.Value); err != nil {
			panic(fmt.Sprintf("profile %s, -%s: %v", c.Profile, p.Flag, err)) // a bug, and a test finds it
		}
	}
	// LISTEN_PID alone would mean nothing: who asks for it wants all of them.
	if c.Explicit["listen-pid"] != Default && bool(c.ListenPID) {
		c.Preset.Listen = true
	}
}

func find(flag string) *Setting {
	for i := range settings {
		if settings[i].Flag == flag {
			return &settings[i]
		}
	}
	panic("no flag -" + flag)
}

// profileRules go with every table of profiles.
const profileRules = "A profile sets defaults: a flag or variable that is given wins, and so does a variable of the " +
	"server's that is in the environment already, except SERVER_STARTER_*. -listen-pid=true adds LISTEN_FDS to a profile without it."

// exampleSockets are those in the tables.
var exampleSockets = []profile.Socket{{FD: 3, Bound: "tcp4://127.0.0.1:80", Host: "127.0.0.1"}, {FD: 4, Bound: "unix:///run/a.sock"}}

const exampleBinds = "-bind 127.0.0.1:80 -bind /run/a.sock"

// Profiles returns the text of -profile help, at most 100 columns wide.
func Profiles() string {
	return "Profiles, and what each sets with " + exampleBinds + "\n" + profileTable() + "\n" + wrap(profileRules, width, 0) + "\n"
}

func profileTable() string {
	const indent = 18
	var b strings.Builder
	for _, p := range profile.Profiles {
		lines := append(profileVariables(p), profileSettings(p)...)
		fmt.Fprintf(&b, "  %-*s%s\n", indent-2, p.Name, wrap(p.Doc, width-indent, indent))
		if len(lines) > 0 {
			fmt.Fprintf(&b, "%*s%s\n", indent, "", wrap(strings.Join(lines, " "), width-indent, indent))
		}
	}
	return b.String()
}

// profileVariables returns what tells the app of the example's sockets.
func profileVariables(p profile.Profile) []string {
	if p.Listen {
		return []string{"LISTEN_FDS=2"}
	}
	return p.Environ(exampleSockets, 1)
}

// profileSettings returns the flags that would do the same.
func profileSettings(p profile.Profile) []string {
	var flags []string
	if p.NonBlock {
		flags = append(flags, "-bind ...?nonblock")
	}
	for _, s := range p.Settings {
		if s.Value == "true" {
			flags = append(flags, "-"+s.Flag)
			continue
		}
		flags = append(flags, "-"+s.Flag+" "+s.Value)
	}
	return flags
}

// profileMarkdown returns the table for docs/configuration.md.
func profileMarkdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "### Profiles\n\nWhat each `-profile` sets, here with `%s`. %s\n\n", exampleBinds, cell(profileRules))
	b.WriteString("| profile | variables | settings | for |\n|---|---|---|---|\n")
	for _, p := range profile.Profiles {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", code(p.Name), code(strings.Join(profileVariables(p), " ")),
			code(strings.Join(profileSettings(p), " ")), cell(p.Doc))
	}
	return b.String() + "\n"
}

// profileRows are the manual page's table.
func profileRows() []example {
	var rows []example
	for _, p := range profile.Profiles {
		sets := strings.Join(append(profileVariables(p), profileSettings(p)...), " ")
		doc := p.Doc
		if sets != "" {
			doc += ": " + sets
		}
		rows = append(rows, example{p.Name, doc})
	}
	return rows
}
