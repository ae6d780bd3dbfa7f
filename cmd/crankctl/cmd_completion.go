package main

import (
	"flag"
	"fmt"
	"io"
	"strings"
)

var cmdCompletion = &command{
	name:    "completion",
	local:   true,
	args:    "bash|zsh|fish",
	summary: "print the completion script of a shell",
	examples: []string{
		"source <(crankctl completion bash)",
		"source <(crankctl completion zsh)",
		"crankctl completion fish > ~/.config/fish/completions/crankctl.fish",
	},
	// setup is set by init, since the script is made from the table that holds this command.
}

func init() {
	cmdCompletion.setup = func(*flag.FlagSet) action {
		return func(s *session, args []string) error {
			scripts := map[string]func(io.Writer){"bash": completeBash, "zsh": completeZsh, "fish": completeFish}
			if len(args) != 1 || scripts[args[0]] == nil {
				return usagef("completion needs one of bash, zsh and fish")
			}
			scripts[args[0]](s.stdout)
			return nil
		}
	}
}

// verbFlags returns the flags of a verb, without the global ones.
func verbFlags(c *command) []*flag.Flag {
	fs := newFlags(c.name)
	c.setup(fs)
	return allFlags(fs)
}

func globalFlags() []*flag.Flag {
	fs := newFlags("crankctl")
	(&globals{}).declare(fs)
	return allFlags(fs)
}

func allFlags(fs *flag.FlagSet) []*flag.Flag {
	var all []*flag.Flag
	fs.VisitAll(func(f *flag.Flag) { all = append(all, f) })
	return all
}

// isSwitch reports whether a flag takes no value.
func isSwitch(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

func dashed(flags []*flag.Flag) string {
	var names []string
	for _, f := range flags {
		names = append(names, "-"+f.Name)
	}
	return strings.Join(names, " ")
}

func verbNames() string {
	names := []string{}
	for _, c := range commands {
		names = append(append(names, c.name), c.aliases...)
	}
	return strings.Join(append(names, "help"), " ")
}

// withValue lists the flags of all verbs that are followed by a value.
func withValue() string {
	seen := map[string]bool{}
	for _, c := range append([]*command{{setup: func(*flag.FlagSet) action { return nil }}}, commands...) {
		for _, f := range append(globalFlags(), verbFlags(c)...) {
			if !isSwitch(f) {
				seen["-"+f.Name] = true
			}
		}
	}
	return strings.Join(sortedKeys(seen), "|")
}

func completeBash(w io.Writer) {
	fmt.Fprintf(w, `_crankctl() {
	local cur=${COMP_WORDS[COMP_CWORD]} verb= i=1 flags=%q words=
	[[ ${COMP_WORDS[0]##*/} == crankx ]] && i=2
	for ((; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--) [[ $verb ]] && { COMPREPLY=($(compgen -f -- "$cur")); return; } ;;
		%s) ((i++)) ;;
		-*) ;;
		*) verb=${COMP_WORDS[i]}; break ;;
		esac
	done
	case $verb in
	'') words=%q ;;
`, dashed(globalFlags()), withValue(), verbNames())
	for _, c := range commands {
		fmt.Fprintf(w, "\t%s) flags+=%q ;;\n", strings.Join(append([]string{c.name}, c.aliases...), "|"), " "+dashed(verbFlags(c)))
	}
	fmt.Fprintf(w, `	esac
	case $verb in
	completion) words='bash zsh fish' ;;
	help) words=%q ;;
	esac
	if [[ $cur == -* ]]; then
		words=$flags
	fi
	COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _crankctl crankctl crankx
`, verbNames())
}

// completeZsh uses zsh's own emulation of bash's completion.
func completeZsh(w io.Writer) {
	fmt.Fprintln(w, "autoload -Uz compinit bashcompinit && compinit && bashcompinit")
	completeBash(w)
}

func completeFish(w io.Writer) {
	fmt.Fprintln(w, "complete -c crankctl -f")
	for _, f := range globalFlags() {
		fishFlag(w, "", f)
	}
	for _, c := range commands {
		for _, name := range append([]string{c.name}, c.aliases...) {
			fmt.Fprintf(w, "complete -c crankctl -n __fish_use_subcommand -a %s -d %s\n", name, fishQuote(c.summary))
		}
		seen := fmt.Sprintf(" -n '__fish_seen_subcommand_from %s'", strings.Join(append([]string{c.name}, c.aliases...), " "))
		for _, f := range verbFlags(c) {
			fishFlag(w, seen, f)
		}
	}
	fmt.Fprintln(w, "complete -c crankctl -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'")
	fmt.Fprintf(w, "complete -c crankctl -n '__fish_seen_subcommand_from help' -a '%s'\n", verbNames())
}

func fishFlag(w io.Writer, condition string, f *flag.Flag) {
	_, usage := flag.UnquoteUsage(f)
	value := " -r"
	if isSwitch(f) {
		value = ""
	}
	fmt.Fprintf(w, "complete -c crankctl%s -o %s%s -d %s\n", condition, f.Name, value, fishQuote(usage))
}

func fishQuote(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}
