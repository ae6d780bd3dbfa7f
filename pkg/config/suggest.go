package config

import (
	"slices"
	"strings"
)

// foreign are variables that belong to others: those that crank sets for the app, and crankctl's.
var foreign = []string{"CRANK_GENERATION", "CRANK_SLOT", "CRANK_CTL_TOKEN_FILE"}

// injected reports whether Kubernetes sets such a variable for a Service named crank or crank-x,
// as it does in every container of its namespace; CRANK_VERSION is common in build files. No
// setting may have such a name.
func injected(name string) bool {
	return name == "CRANK_VERSION" || strings.Contains(name, "_PORT") || strings.Contains(name, "_SERVICE_")
}

// unknownVariables returns one warning for each variable that looks like crank's and is not.
func unknownVariables(environ []string) []string {
	known := append(Variables(), foreign...)
	var warnings []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, prefix+"_") && !slices.Contains(known, name) && !injected(name) {
			warnings = append(warnings, "unknown variable "+name+" has no effect"+didYouMean(suggestVariable(name)))
		}
	}
	slices.Sort(warnings)
	return slices.Compact(warnings)
}

func didYouMean(what string) string {
	if what == "" {
		return ""
	}
	return ": did you mean " + what + "?"
}

// suggestFlag returns the flag that name was probably meant to be, with its dash, or "". It knows
// the names of the variables too: -start-timeout is -start.
func suggestFlag(name string) string {
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	if s := suggest(name); s != nil {
		return "-" + s.Flag
	}
	return ""
}

// suggestVariable does the same for a variable: CRANK_START is CRANK_START_TIMEOUT.
func suggestVariable(name string) string {
	name = strings.ToLower(strings.TrimPrefix(name, prefix+"_"))
	if s := suggest(strings.ReplaceAll(name, "_", "-")); s != nil && s.Var != "" {
		return s.Var
	}
	return ""
}

func suggest(name string) *Setting {
	var best *Setting
	limit := min(len(name)/3, 3) + 1 // exclusive: the shorter the name, the fewer slips it can have
	for i := range settings {
		for _, spelling := range settings[i].spellings() {
			if d := distance(name, spelling, limit); d < limit {
				best, limit = &settings[i], d
			}
		}
	}
	if best != nil {
		return best
	}
	return uniquePrefix(name)
}

func (s *Setting) spellings() []string {
	inVariable := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(s.Var, prefix+"_"), "_", "-"))
	return []string{s.Flag, inVariable}
}

// uniquePrefix returns the only setting whose name begins with name.
func uniquePrefix(name string) *Setting {
	var found *Setting
	for i := range settings {
		if len(name) < 2 || !strings.HasPrefix(settings[i].Flag, name) {
			continue
		}
		if found != nil {
			return nil
		}
		found = &settings[i]
	}
	return found
}

// distance is how many slips make b of a: a letter too many, too few or wrong, or two swapped
// (optimal string alignment). Where it would be at least limit, limit is returned.
func distance(a, b string, limit int) int {
	if max(len(a)-len(b), len(b)-len(a)) >= limit {
		return limit
	}
	d := make([][]int, len(a)+1) // d[i][j]: from a[:i] to b[:j]
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			wrong := 1
			if a[i-1] == b[j-1] {
				wrong = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+wrong)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return min(d[len(a)][len(b)], limit)
}
