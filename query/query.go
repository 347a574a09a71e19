// Package query is the language of searches: words and conditions that a name, a path, a size or a time
// meets. Parse reads it, Query.Match asks it of an entry. It knows no clock and no catalogue: the time is
// given to Parse, and which entries a device, a tag or a hash stands for is the entry's to answer.
//
//	beach 2019              both words are in the name; large and small letters are equal
//	"beach 2019"            this is in the name, with the space
//	beach | lake            either; binds less than the space: a b | c is (a b) | c
//	!draft                  not; binds to the next term alone
//	(beach | lake) 2019     brackets group
//	ext:jpg,png             the name ends in .jpg or .png; no folders
//	size:>10MB              also >= < <=, 1MB..2GB, 1MB.. and ..2GB with both ends included, and 0 alone
//	path:2019/              this is in the whole path, written with slashes
//	date:2024-04            changed in that month; also a year, a day, today, yesterday, > >= < <= and A..B
//	on:nas,attic            on one of these devices
//	tag:family,work         has one of these tags
//	hash:9f2c               the hash of the content begins so, at least four digits
//
// Units are of 1000 (kB, MB, GB, TB, PB) or of 1024 (KiB to PiB). Between quotes everything stands for
// itself, but for \" and \\ , which are a quote and a backslash; what follows a key may be quoted too.
// Outside of quotes a backslash is a backslash, "!" and "(" mean something at the start of a term only, and
// ")" inside of brackets only. A term that begins like a key, with letters and a colon, must be quoted if it
// is none.
package query

import (
	"bytes"
	"math"
)

// MaxLen is the most bytes of a query.
const MaxLen = 1024

// Entry is what a query is put to.
type Entry interface {
	// Name returns the name as Fold leaves it.
	Name() []byte
	// InPath reports whether part, as Fold leaves it, is in the whole path with slashes, as Fold leaves that.
	InPath(part []byte) bool
	Folder() bool
	// Size returns the bytes of a regular file; false for anything else.
	Size() (uint64, bool)
	// Modified returns Unix nanoseconds; false if it has no such time.
	Modified() (int64, bool)
	// In reports whether it is among the entries that the query's term of that index names.
	In(term int) bool
}

// Query is a parsed query. The zero Query matches everything.
type Query struct {
	root  expr
	terms []Term
}

// Term is a condition by something that has a name outside of the query. Whoever puts the query to entries
// finds out first which entries it names.
type Term struct {
	Key    string   // "on", "tag" or "hash"
	Values []string // any of them; of a hash the first hexadecimal digits, in small letters
}

// Terms returns the query's terms; Entry.In knows them by their index here.
func (q Query) Terms() []Term { return q.terms }

// And returns a query for what q matches and t names.
func (q Query) And(t Term) Query {
	named := expr(named(len(q.terms)))
	terms := append(q.terms[:len(q.terms):len(q.terms)], t)
	if q.root == nil {
		return Query{named, terms}
	}
	return Query{all{q.root, named}, terms}
}

// Match reports whether the query matches an entry. It may be called by several goroutines, each with an
// entry of its own.
func (q Query) Match(e Entry) bool { return q.root == nil || q.root.match(e) }

// Possible reports whether the query can match an entry of which known tells, for some terms, whether it is
// among those that the term names. False is certain.
func (q Query) Possible(known func(term int) (in, known bool)) bool {
	if q.root == nil {
		return true
	}
	can, _ := q.root.may(known)
	return can
}

// expr is one node of the syntax tree.
type expr interface {
	match(Entry) bool
	may(known func(int) (in, known bool)) (match, miss bool) // what is possible
	append(b []byte) []byte                                  // its encoding
}

type (
	all     []expr
	either  []expr
	not     struct{ expr }
	inName  []byte   // folded
	inPath  []byte   // folded
	ext     [][]byte // folded, each with its dot
	sized   struct{ least, most uint64 }
	changed struct{ first, last int64 } // Unix nanoseconds
	named   int                         // index of the term
)

func (x all) match(e Entry) bool {
	for _, part := range x {
		if !part.match(e) {
			return false
		}
	}
	return true
}

func (x either) match(e Entry) bool {
	for _, part := range x {
		if part.match(e) {
			return true
		}
	}
	return false
}

func (x not) match(e Entry) bool    { return !x.expr.match(e) }
func (x inName) match(e Entry) bool { return bytes.Contains(e.Name(), x) }
func (x inPath) match(e Entry) bool { return e.InPath(x) }
func (x named) match(e Entry) bool  { return e.In(int(x)) }

func (x all) may(known func(int) (bool, bool)) (match, miss bool) {
	match = true
	for _, part := range x {
		a, b := part.may(known)
		match, miss = match && a, miss || b
	}
	return match, miss
}

func (x either) may(known func(int) (bool, bool)) (match, miss bool) {
	miss = true
	for _, part := range x {
		a, b := part.may(known)
		match, miss = match || a, miss && b
	}
	return match, miss
}

func (x not) may(known func(int) (bool, bool)) (match, miss bool) {
	match, miss = x.expr.may(known)
	return miss, match
}

func (x named) may(known func(int) (bool, bool)) (match, miss bool) {
	in, sure := known(int(x))
	return in || !sure, !in || !sure
}

func (inName) may(func(int) (bool, bool)) (match, miss bool)  { return true, true }
func (inPath) may(func(int) (bool, bool)) (match, miss bool)  { return true, true }
func (ext) may(func(int) (bool, bool)) (match, miss bool)     { return true, true }
func (sized) may(func(int) (bool, bool)) (match, miss bool)   { return true, true }
func (changed) may(func(int) (bool, bool)) (match, miss bool) { return true, true }

func (x ext) match(e Entry) bool {
	name := e.Name()
	for _, end := range x {
		if len(name) > len(end) && bytes.HasSuffix(name, end) {
			return !e.Folder()
		}
	}
	return false
}

func (x sized) match(e Entry) bool {
	n, ok := e.Size()
	return ok && x.least <= n && n <= x.most
}

func (x changed) match(e Entry) bool {
	at, ok := e.Modified()
	return ok && x.first <= at && at <= x.last
}

// anySize and anyTime are conditions that only what has no size, or time, fails.
var (
	anySize = sized{0, math.MaxUint64}
	anyTime = changed{math.MinInt64, math.MaxInt64}
)
