package markdown

import "testing"

const document = "```sh\nfirst\n```\n## One\n\ntext\n\n```js\none();\n```\n\n```js\nmore();\n```\n\n## Two\n```js\ntwo();\n\nend();\n```\n## Three\n```js\nnot closed"

func TestBlock(t *testing.T) {
	tests := []struct{ heading, language, want, err string }{
		{"", "sh", "first\n", ""},
		{"", "js", "one();\n", ""},
		{"One", "js", "one();\n", ""},
		{"Two", "js", "two();\n\nend();\n", ""},
		{"Two", "sh", "", `there is no block of sh below "Two"`},
		{"Three", "js", "", `there is no block of js below "Three"`},
		{"Four", "js", "", `there is no heading "Four"`},
		{"", "j", "", `there is no block of j below ""`},
	}
	for _, tt := range tests {
		got, err := block(document, tt.heading, tt.language)
		if got != tt.want || err == nil && tt.err != "" || err != nil && err.Error() != tt.err {
			t.Errorf("block(%q, %q) is %q, error %v, want %q, %q", tt.heading, tt.language, got, err, tt.want, tt.err)
		}
	}
}
