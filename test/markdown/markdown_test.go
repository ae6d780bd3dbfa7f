package markdown

import (
	"strings"
	"testing"
)

const document = "```sh\nfirst\n```\n## One\n\ntext\n\n```js\none();\n```\n\n```js\nmore();\n```\n\n## Two\n```js\ntwo();\n\nend();\n```\n## Three\n```js\nnot closed"

func TestBlocks(t *testing.T) {
	tests := []struct{ heading, language, want, err string }{
		{"", "sh", "first\n", ""},
		{"", "js", "one();\n|more();\n|two();\n\nend();\n", ""},
		{"One", "js", "one();\n|more();\n", ""},
		{"Two", "js", "two();\n\nend();\n", ""},
		{"Two", "sh", "", `there is no block of sh below "Two"`},
		{"Three", "js", "", `there is no block of js below "Three"`},
		{"Four", "js", "", `there is no heading "Four"`},
		{"", "j", "", `there is no block of j below ""`},
	}
	for _, tt := range tests {
		all, err := blocks(document, tt.heading, tt.language)
		got := strings.Join(all, "|")
		if got != tt.want || err == nil && tt.err != "" || err != nil && err.Error() != tt.err {
			t.Errorf("blocks(%q, %q) are %q, error %v, want %q, %q", tt.heading, tt.language, got, err, tt.want, tt.err)
		}
	}
}
