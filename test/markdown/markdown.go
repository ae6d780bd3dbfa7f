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
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	code, err := block(string(text), heading, language)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return code
}

func block(text, heading, language string) (string, error) {
	section := "\n" + text
	if heading != "" {
		_, below, ok := strings.Cut(section, "\n## "+heading+"\n")
		if !ok {
			return "", fmt.Errorf("there is no heading %q", heading)
		}
		section, _, _ = strings.Cut("\n"+below, "\n## ")
		section += "\n"
	}
	_, rest, ok := strings.Cut(section, "\n```"+language+"\n")
	code, _, end := strings.Cut(rest, "\n```\n")
	if !ok || !end {
		return "", fmt.Errorf("there is no block of %s below %q", language, heading)
	}
	return code + "\n", nil
}
