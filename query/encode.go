package query

import (
	"encoding/binary"
	"errors"
	"math"
)

// A query is put to another device as it was understood here: dates are spans of time by then, and letters
// folded, so that the other's zone and version of the language change nothing.
//
//	query   count of terms; each: sized key, count of values, each sized; then a node, or nothing
//	node    1 all, 2 either: count, nodes    3 not: node    4 in the name, 5 in the path: sized
//	        6 endings: count, each sized     7 size: least, most    8 changed: first, last (8 bytes each)
//	        9 term: its index
//
// Integers are uvarints unless a size is given; "sized" is a uvarint length and bytes. Append only.
const (
	nodeAll = iota + 1
	nodeEither
	nodeNot
	nodeName
	nodePath
	nodeExt
	nodeSize
	nodeChanged
	nodeTerm
)

// Limits on an encoded query. What Parse has read stays well below them.
const (
	MaxEncoded = 16 << 10 // bytes
	maxNested  = 4 * maxDepth
)

// ErrEncoding is returned for bytes that are no query.
var ErrEncoding = errors.New("not an encoded query")

// WithTerms returns q with other terms in place of its own, which must be as many.
func (q Query) WithTerms(terms []Term) Query { return Query{q.root, terms} }

// BySize returns a query for the files of a size.
func BySize(bytes uint64) Query { return Query{root: sized{bytes, bytes}} }

// Append adds the encoding of q to b.
func (q Query) Append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(q.terms)))
	for _, t := range q.terms {
		b = appendText(b, t.Key)
		b = binary.AppendUvarint(b, uint64(len(t.Values)))
		for _, v := range t.Values {
			b = appendText(b, v)
		}
	}
	if q.root == nil {
		return b
	}
	return q.root.append(b)
}

func appendText[T ~string | ~[]byte](b []byte, text T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

func appendAll(b []byte, kind byte, parts []expr) []byte {
	b = binary.AppendUvarint(append(b, kind), uint64(len(parts)))
	for _, x := range parts {
		b = x.append(b)
	}
	return b
}

func (x all) append(b []byte) []byte    { return appendAll(b, nodeAll, x) }
func (x either) append(b []byte) []byte { return appendAll(b, nodeEither, x) }
func (x not) append(b []byte) []byte    { return x.expr.append(append(b, nodeNot)) }
func (x inName) append(b []byte) []byte { return appendText(append(b, nodeName), x) }
func (x inPath) append(b []byte) []byte { return appendText(append(b, nodePath), x) }

func (x ext) append(b []byte) []byte {
	b = binary.AppendUvarint(append(b, nodeExt), uint64(len(x)))
	for _, end := range x {
		b = appendText(b, end)
	}
	return b
}

func (x sized) append(b []byte) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(append(b, nodeSize), x.least), x.most)
}

func (x changed) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(append(b, nodeChanged), uint64(x.first))
	return binary.BigEndian.AppendUint64(b, uint64(x.last))
}

func (x named) append(b []byte) []byte { return binary.AppendUvarint(append(b, nodeTerm), uint64(x)) }

// Decode reads what Append wrote, and returns ErrEncoding for anything else. Texts are taken as folded.
func Decode(b []byte) (Query, error) {
	if len(b) > MaxEncoded {
		return Query{}, ErrEncoding
	}
	d := &decoder{b: b}
	var q Query
	for range d.count() {
		t := Term{Key: string(d.text())}
		for range d.count() {
			t.Values = append(t.Values, string(d.text()))
		}
		q.terms = append(q.terms, t)
	}
	if len(d.b) > 0 && !d.bad {
		q.root = d.node(len(q.terms), 0)
	}
	if d.bad || len(d.b) > 0 {
		return Query{}, ErrEncoding
	}
	return q, nil
}

// decoder reads until something is wrong; then everything is zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() {
	d.b, d.bad = nil, true
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads how many things follow, each of a byte at least.
func (d *decoder) count() int {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) text() []byte { return d.take(d.uvarint()) }

func (d *decoder) int64() int64 {
	if b := d.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

func (d *decoder) node(terms, depth int) expr {
	kind := d.take(1)
	if kind == nil || depth > maxNested {
		d.fail()
		return nil
	}
	switch kind[0] {
	case nodeAll:
		return all(d.nodes(terms, depth))
	case nodeEither:
		return either(d.nodes(terms, depth))
	case nodeNot:
		return not{d.node(terms, depth+1)}
	case nodeName:
		return inName(d.text())
	case nodePath:
		return inPath(d.text())
	case nodeExt:
		var out ext
		for range d.count() {
			out = append(out, d.text())
		}
		return out
	case nodeSize:
		return sized{d.uvarint(), d.uvarint()}
	case nodeChanged:
		return changed{d.int64(), d.int64()}
	case nodeTerm:
		n := d.uvarint()
		if n < uint64(min(terms, math.MaxInt32)) {
			return named(n)
		}
	}
	d.fail()
	return nil
}

func (d *decoder) nodes(terms, depth int) (out []expr) {
	for range d.count() {
		x := d.node(terms, depth+1)
		if d.bad {
			return nil
		}
		out = append(out, x)
	}
	return out
}
