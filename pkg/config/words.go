package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// Words splits a command that was given as one text, as -check and -ready exec: are. It is either a JSON array of
// strings, or words between white space. In words, '...' takes all as it is, "..." takes all but \" and \\, and
// elsewhere a backslash takes the next character as it is. Nothing is expanded: who wants a shell says so (sh -c '...').
//
// There is at least one word, and the first one is not empty. The error says what is wanted.
func Words(text string) ([]string, error) {
	words, err := split(text)
	switch {
	case err != nil:
		return nil, err
	case len(words) == 0:
		return nil, errors.New("want a command")
	case words[0] == "":
		return nil, errors.New("want a command: the first word is empty")
	case strings.ContainsRune(strings.Join(words, ""), 0):
		return nil, errors.New("want a command without a zero byte")
	}
	return words, nil
}

func split(text string) (words []string, err error) {
	if strings.HasPrefix(strings.TrimSpace(text), "[") {
		if err := json.Unmarshal([]byte(text), &words); err != nil {
			return nil, fmt.Errorf(`want words, or a JSON array of strings such as ["/app", "-t"]: %w`, err)
		}
		return words, nil
	}
	var s splitter
	for _, r := range text {
		s.take(r)
	}
	if s.quote != 0 {
		return nil, fmt.Errorf("want the quote %c to be closed", s.quote)
	}
	if s.escaped {
		return nil, errors.New("want a character after the last backslash")
	}
	return s.end(), nil
}

// splitter is what is known after some characters of the text.
type splitter struct {
	words   []string
	word    strings.Builder
	inWord  bool // also where the word is empty: ''
	quote   rune // which one is open; 0: none
	escaped bool // the last character was a backslash
}

func (s *splitter) take(r rune) {
	switch {
	case s.escaped:
		s.escaped = false
		if s.quote == '"' && r != '"' && r != '\\' {
			s.word.WriteByte('\\')
		}
		s.word.WriteRune(r)
	case r == '\\' && s.quote != '\'':
		s.escaped, s.inWord = true, true
	case s.quote != 0 && r == s.quote:
		s.quote = 0
	case s.quote != 0:
		s.word.WriteRune(r)
	case r == '\'' || r == '"':
		s.quote, s.inWord = r, true
	case unicode.IsSpace(r):
		s.words = s.end()
	default:
		s.inWord = true
		s.word.WriteRune(r)
	}
}

// end ends the word that was begun, if there is one, and returns all.
func (s *splitter) end() []string {
	if s.inWord {
		s.words = append(s.words, s.word.String())
		s.word.Reset()
		s.inWord = false
	}
	return s.words
}
