package query

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Error says what is wrong with a query, and where.
type Error struct {
	Query   string
	At, End int    // the bytes at fault: Query[At:End]; At may be len(Query)
	Message string // without the query
	Example string // a query that says such a thing; or several, with three spaces between them
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s, at byte %d of %q; for example %s", e.Message, e.At+1, e.Query, e.Example)
}

// maxDepth is how deep brackets and negations may be nested.
const maxDepth = 50

// Parse reads a query. Its dates are days of now's time zone. An empty query matches everything. Every error
// is an *Error.
func Parse(text string, now time.Time) (Query, error) {
	p := &parser{text: text, now: now}
	if len(text) > MaxLen {
		return Query{}, p.wrong(MaxLen, len(text), "beach 2019", "the query has %d bytes, more than %d", len(text), MaxLen)
	}
	if p.space(); p.end() {
		return Query{}, nil
	}
	root, err := p.either()
	if err == nil && !p.end() { // only a bracket ends an expression early
		err = p.wrong(p.at, p.at+1, groupExample, "no bracket is open here")
	}
	if err != nil {
		return Query{}, err
	}
	return Query{root, p.terms}, nil
}

const groupExample = "(beach | lake) 2019"

type parser struct {
	text  string
	at    int
	depth int   // of brackets and negations
	open  []int // where the brackets that are open begin
	now   time.Time
	terms []Term
}

func (p *parser) wrong(at, end int, example, format string, args ...any) *Error {
	return &Error{Query: p.text, At: at, End: end, Message: fmt.Sprintf(format, args...), Example: example}
}

func (p *parser) end() bool { return p.at == len(p.text) }

// next reports whether c comes next, and takes it if it does.
func (p *parser) next(c byte) bool {
	if p.end() || p.text[p.at] != c {
		return false
	}
	p.at++
	return true
}

func (p *parser) space() {
	for !p.end() {
		r, n := utf8.DecodeRuneInString(p.text[p.at:])
		if !unicode.IsSpace(r) {
			return
		}
		p.at += n
	}
}

// either reads what "|" separates, up to the end or a closing bracket.
func (p *parser) either() (expr, error) {
	var out either
	for {
		x, err := p.all()
		if err != nil {
			return nil, err
		}
		out = append(out, x)
		if !p.next('|') {
			break
		}
	}
	if len(out) == 1 {
		return out[0], nil
	}
	return out, nil
}

// all reads terms up to "|", a closing bracket or the end.
func (p *parser) all() (expr, error) {
	var out all
	for {
		p.space()
		if p.end() || p.text[p.at] == '|' || p.text[p.at] == ')' {
			break
		}
		x, err := p.term()
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	switch {
	case len(out) == 1:
		return out[0], nil
	case len(out) > 1:
		return out, nil
	case p.at > 0 && p.end() && p.lastIs('|'):
		return nil, p.wrong(p.at, p.at, "beach | lake", `nothing follows "|"`)
	case p.end():
		return nil, p.wrong(p.at, p.at, groupExample, "something must follow here")
	case p.text[p.at] == '|':
		return nil, p.wrong(p.at, p.at+1, "beach | lake", `nothing stands before this "|"`)
	case len(p.open) == 0:
		return nil, p.wrong(p.at, p.at+1, groupExample, "no bracket is open here")
	}
	return nil, p.wrong(p.at, p.at+1, groupExample, "nothing stands before this bracket")
}

// lastIs reports whether the last thing that is no space is c.
func (p *parser) lastIs(c byte) bool {
	return strings.HasSuffix(strings.TrimRightFunc(p.text[:p.at], unicode.IsSpace), string(c))
}

// term reads a word, a phrase, a key with its value, a group, or the negation of one.
func (p *parser) term() (expr, error) {
	start := p.at
	if p.depth++; p.depth > maxDepth {
		return nil, p.wrong(start, start+1, groupExample, "more than %d brackets and negations are nested", maxDepth)
	}
	defer func() { p.depth-- }()
	switch {
	case p.next('!'):
		p.space()
		if p.end() || p.text[p.at] == '|' || p.text[p.at] == ')' {
			return nil, p.wrong(start, start+1, "beach !draft", `nothing follows "!"`)
		}
		x, err := p.term()
		return not{x}, err
	case p.next('('):
		p.open = append(p.open, start)
		x, err := p.either()
		if err != nil {
			return nil, err
		}
		if !p.next(')') {
			return nil, p.wrong(start, start+1, groupExample, "this bracket is not closed")
		}
		p.open = p.open[:len(p.open)-1]
		return x, nil
	case p.text[p.at] == '"':
		text, err := p.quoted()
		if err == nil && text == "" {
			err = p.wrong(start, p.at, `"beach 2019"`, "there is nothing between the quotes")
		}
		if err != nil {
			return nil, err
		}
		return inName(Fold(nil, []byte(text))), nil
	}
	if n := keyLen(p.text[p.at:]); n > 0 {
		return p.key(p.text[p.at : p.at+n])
	}
	return inName(Fold(nil, []byte(p.bare("")))), nil
}

// quoted reads a text between quotes.
func (p *parser) quoted() (string, error) {
	start := p.at
	var b strings.Builder
	for p.at++; !p.end(); p.at++ {
		c := p.text[p.at]
		if c == '"' {
			p.at++
			return b.String(), nil
		}
		if rest := p.text[p.at:]; strings.HasPrefix(rest, `\"`) || strings.HasPrefix(rest, `\\`) {
			p.at++
			c = p.text[p.at]
		}
		b.WriteByte(c)
	}
	return "", p.wrong(start, len(p.text), `"beach 2019"`, "this quote is not closed")
}

// bare reads up to a space, a quote, a "|", a bracket that closes one outside of the word, or one of stops.
func (p *parser) bare(stops string) string {
	start, inside := p.at, 0
	for !p.end() {
		r, n := utf8.DecodeRuneInString(p.text[p.at:])
		switch {
		case unicode.IsSpace(r) || r == '"' || r == '|' || strings.ContainsRune(stops, r):
			return p.text[start:p.at]
		case r == '(':
			inside++
		case r == ')' && inside > 0:
			inside--
		case r == ')' && len(p.open) > 0:
			return p.text[start:p.at]
		}
		p.at += n
	}
	return p.text[start:]
}

// keyLen returns the length of the key that text begins with, without its colon; 0 if it does not.
func keyLen(text string) int {
	for i := range len(text) {
		c := text[i] | 0x20
		switch {
		case c >= 'a' && c <= 'z', i > 0 && (text[i] >= '0' && text[i] <= '9' || text[i] == '-' || text[i] == '_'):
		case text[i] == ':':
			return i
		default:
			return 0
		}
	}
	return 0
}

// value is what follows a key, or one of several with commas between them.
type value struct {
	text    string
	at, end int
}

// values reads what follows a key: with list as many as commas separate, else one.
func (p *parser) values(list bool) (out []value, err error) {
	stops := ""
	if list {
		stops = ","
	}
	for {
		v := value{at: p.at}
		if !p.end() && p.text[p.at] == '"' {
			v.text, err = p.quoted()
		} else {
			v.text = p.bare(stops)
		}
		if err != nil {
			return nil, err
		}
		v.end = p.at
		out = append(out, v)
		if !list || !p.next(',') {
			return out, nil
		}
	}
}
