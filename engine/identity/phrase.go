package identity

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/tyler-smith/go-bip39"
	"golang.org/x/text/unicode/norm"

	"osaurus/engine/fault"
	"osaurus/engine/secret"
)

// PhraseError says what is wrong with a typed phrase without repeating it.
type PhraseError struct {
	Words    int // how many words were found; not counted when TooLong
	Word     int // position of the first word not in the list, from 1; 0 for none
	Checksum bool
	TooLong  bool // the text cannot be a phrase
}

// Error names the position, never the word.
func (e *PhraseError) Error() string {
	switch {
	case e.Word > 0:
		return fmt.Sprintf("word %d is not in the BIP-39 English list", e.Word)
	case e.Checksum:
		return "every word is in the list, but the checksum does not match: a word is wrong or two are swapped"
	case e.TooLong:
		return fmt.Sprintf("the text is too long to be a phrase of %d words", PhraseWords)
	default:
		return fmt.Sprintf("want %d words, found %d", PhraseWords, e.Words)
	}
}

// Unwrap makes errors.Is find fault.InvalidPhrase.
func (e *PhraseError) Unwrap() error { return fault.InvalidPhrase }

// Phrase returns the 24 words that encode the master itself: the entropy form
// of BIP-39, not the PBKDF2 seed. The caller destroys it.
func (m MasterKey) Phrase() (secret.Bytes, error) {
	words, err := bip39.NewMnemonic(m.seed.Expose())
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("encoding the phrase: %w", err)
	}
	return secret.Take([]byte(words)), nil
}

// ParsePhrase reads a phrase as people keep them: any white space, any case,
// NFKD, numbered lists. The word list works on strings, which cannot be
// cleared: they live until the collector takes them. Errors: *PhraseError,
// signature.ErrScalar.
func ParsePhrase(typed secret.Bytes) (MasterKey, error) {
	if typed.Len() > maxPhraseBytes {
		return MasterKey{}, &PhraseError{TooLong: true}
	}
	words := phraseWords(typed.Expose())
	for i, w := range words {
		if _, ok := bip39.GetWordIndex(w); !ok {
			return MasterKey{}, &PhraseError{Words: len(words), Word: i + 1}
		}
	}
	if len(words) != PhraseWords {
		return MasterKey{}, &PhraseError{Words: len(words)}
	}
	entropy, err := bip39.EntropyFromMnemonic(strings.Join(words, " "))
	if err != nil {
		return MasterKey{}, &PhraseError{Words: len(words), Checksum: true}
	}
	seed := secret.Take(entropy)
	defer seed.Destroy()
	return NewMasterKey(seed)
}

// listMarks are the signs around a number in front of a word.
const listMarks = "()[].:#-"

// phraseWords splits a typed phrase and drops the numbers of a numbered list
// ("1.", "2)", "(3)", "4:"). A digit inside a word stays, so that it is
// reported.
func phraseWords(typed []byte) []string {
	text := strings.ToLower(string(norm.NFKD.Bytes(typed)))
	var words []string
	for _, word := range strings.FieldsFunc(text, unicode.IsSpace) {
		if number := strings.TrimLeft(word, listMarks); number != "" && '0' <= number[0] && number[0] <= '9' {
			word = strings.TrimLeft(number, "0123456789"+listMarks)
		}
		if word != "" {
			words = append(words, word)
		}
	}
	return words
}
