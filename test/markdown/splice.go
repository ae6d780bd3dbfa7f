package markdown

import (
	"errors"
	"os"
	"strings"
)

// Splice puts text in the place of what stands between the lines begin and end in a document: what a program has found
// out, which nobody is to write by hand. text ends with a newline.
func Splice(path, begin, end, text string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(old), begin+"\n")
	_, after, ok2 := strings.Cut(rest, end+"\n")
	if !ok || !ok2 {
		return errors.New(path + " has no lines between which this could stand: " + begin)
	}
	return os.WriteFile(path, []byte(before+begin+"\n"+text+end+"\n"+after), 0o644)
}
