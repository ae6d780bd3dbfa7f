// Package markdown takes code blocks out of the documents, for tests that run them as they stand there, and puts tables in.
package markdown

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Block returns the first code block of a language below a heading of the second level; without a heading, of the
// whole document. Where there is none the test has failed.
func Block(t *testing.T, path, heading, language string) string {
	t.Helper()
	return Blocks(t, path, heading, language)[0]
}

// Blocks returns all such blocks, at least one.
func Blocks(t *testing.T, path, heading, language string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all, err := blocks(string(text), heading, language)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return all
}

func blocks(text, heading, language string) (all []string, err error) {
	section := "\n" + text
	if heading != "" {
		_, below, ok := strings.Cut(section, "\n## "+heading+"\n")
		if !ok {
			return nil, fmt.Errorf("there is no heading %q", heading)
		}
		section, _, _ = strings.Cut("\n"+below, "\n## ")
		section += "\n"
	}
	for {
		_, rest, ok := strings.Cut(section, "\n```"+language+"\n")
		code, after, end := strings.Cut(rest, "\n```\n")
		if !ok || !end {
			break
		}
		all, section = append(all, code+"\n"), "\n"+after
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("there is no block of %s below %q", language, heading)
	}
	return all, nil
}
