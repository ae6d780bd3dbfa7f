package config

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestWords(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string // nil: an error that contains bad
		bad  string
	}{
		{"nginx -t", []string{"nginx", "-t"}, ""},
		{"  nginx\t-t\n-q  ", []string{"nginx", "-t", "-q"}, ""},
		{`sh -c 'test -f "$HOME/a b"'`, []string{"sh", "-c", `test -f "$HOME/a b"`}, ""},
		{`a "b c" d"e f"g`, []string{"a", "b c", "de fg"}, ""},
		{`a "say \"hi\" \\ \n"`, []string{"a", `say "hi" \ \n`}, ""},
		{`a '\n' \' \  b\ c`, []string{"a", `\n`, "'", " ", "b c"}, ""},
		{`a '' ""`, []string{"a", "", ""}, ""},
		{`a $HOME ~ * | ; > b`, []string{"a", "$HOME", "~", "*", "|", ";", ">", "b"}, ""},
		{"prüfe größe", []string{"prüfe", "größe"}, ""},
		{`["/app", "-t", "a b", ""]`, []string{"/app", "-t", "a b", ""}, ""},
		{` ["/app"] `, []string{"/app"}, ""},
		{"", nil, "want a command"},
		{" \n", nil, "want a command"},
		{"[]", nil, "want a command"},
		{`''`, nil, "first word is empty"},
		{`["", "a"]`, nil, "first word is empty"},
		{`a 'b`, nil, "quote ' to be closed"},
		{`a "b'`, nil, `quote " to be closed`},
		{`a \`, nil, "backslash"},
		{`[ -f /etc/passwd ]`, nil, "JSON array"},
		{`["a", 1]`, nil, "JSON array"},
		{`["a"] b`, nil, "JSON array"},
		{"a\x00b", nil, "zero byte"},
	} {
		got, err := Words(c.text)
		if !slices.Equal(got, c.want) || (err != nil) != (c.want == nil) || err != nil && !strings.Contains(err.Error(), c.bad) {
			t.Errorf("%q: %q, %v; want %q, %s", c.text, got, err, c.want, c.bad)
		}
	}
}

// FuzzWords: what comes out is a command, and goes in again by either way of writing it.
func FuzzWords(f *testing.F) {
	for _, seed := range []string{`nginx -t`, `sh -c 'a b' "c\"d" \e`, `["a","b c"]`, `a 'b`, `a \`, "a\u00a0b", "\xff", `''`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		words, err := Words(text)
		if err != nil {
			return
		}
		if len(words) == 0 || words[0] == "" {
			t.Fatalf("%q: no command in %q", text, words)
		}
		var quoted []string
		for _, word := range words {
			if !utf8.ValidString(word) {
				t.Fatalf("%q: not UTF-8: %q", text, word)
			}
			quoted = append(quoted, "'"+strings.ReplaceAll(word, "'", `'\''`)+"'")
		}
		array, err := json.Marshal(words)
		if err != nil {
			t.Fatal(err)
		}
		for _, again := range []string{strings.Join(quoted, " "), string(array)} {
			if got, err := Words(again); err != nil || !slices.Equal(got, words) {
				t.Fatalf("%q became %q: %q, %v", words, again, got, err)
			}
		}
	})
}
