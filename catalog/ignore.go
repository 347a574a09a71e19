package catalog

import (
	"strings"
)

// IgnoreFile is the name of the files that say what is left out of the catalogue below the directory
// they lie in. Their syntax and meaning are those of a .gitignore file.
const IgnoreFile = ".peerignore"

// maxIgnoreFile is how much of an ignore file is read, in bytes.
const maxIgnoreFile = 1 << 20

// DefaultIgnore is left out of every location unless an ignore file or a location's own globs take it
// back with a '!': what systems and file managers keep for themselves and nobody would look for.
var DefaultIgnore = []string{
	".DS_Store", "._*", ".Spotlight-V100/", ".fseventsd/", ".Trashes/", ".TemporaryItems/", // macOS
	"Thumbs.db", "desktop.ini", "$RECYCLE.BIN/", "System Volume Information/", // Windows
	"lost+found/", ".Trash-*/", ".directory", // Linux
	"@eaDir/", "#recycle/", // NAS
}

// rules are the patterns of one source, on top of the sources that weaker ones came from.
type rules struct {
	up   *rules
	base string // directory the patterns are relative to, below the location, with slashes; "" for the location
	list []rule
	deep bool // some rule looks at more than the name
}

// rule is one pattern of an ignore file.
type rule struct {
	negated bool
	dirOnly bool
	literal string   // the whole name, if the pattern has no wildcard and no slash
	parts   []string // the pattern between its slashes; one part: the name alone is looked at
	rooted  bool     // parts are matched against the path from base, not the name
}

// parseRules reads an ignore file that lies in base. Rules of up are weaker. It returns up if there is
// no rule at all.
func parseRules(up *rules, base, text string) *rules {
	r := &rules{up: up, base: base}
	text = strings.TrimPrefix(text, "\ufeff")
	for line := range strings.SplitSeq(text, "\n") {
		if one, ok := parseRule(strings.TrimSuffix(line, "\r")); ok {
			r.list = append(r.list, one)
			r.deep = r.deep || one.rooted
		}
	}
	if len(r.list) == 0 {
		return up
	}
	return r
}

func parseRule(line string) (r rule, ok bool) {
	if strings.HasPrefix(line, "#") {
		return r, false
	}
	line = trimSpaces(line)
	if rest, found := strings.CutPrefix(line, "!"); found {
		r.negated, line = true, rest
	}
	if rest, found := strings.CutSuffix(line, "/"); found {
		r.dirOnly, line = true, rest
	}
	if line == "" {
		return r, false
	}
	r.rooted = strings.Contains(line, "/")
	line = strings.TrimPrefix(line, "/")
	if !r.rooted {
		if !strings.ContainsAny(line, `*?[\`) {
			r.literal = line
		}
		r.parts = []string{line}
		return r, true
	}
	r.parts = splitPattern(line)
	if last := len(r.parts) - 1; r.parts[last] == "**" { // what is inside, not the directory itself
		r.parts = append(r.parts, "*")
	}
	return r, true
}

// trimSpaces cuts trailing spaces that no backslash protects.
func trimSpaces(line string) string {
	end := len(line)
	for end > 0 && line[end-1] == ' ' {
		slashes := 0
		for i := end - 2; i >= 0 && line[i] == '\\'; i-- {
			slashes++
		}
		if slashes%2 == 1 {
			break
		}
		end--
	}
	return line[:end]
}

// splitPattern cuts a pattern at its slashes, but not inside brackets.
func splitPattern(p string) (parts []string) {
	start := 0
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '\\':
			if i+1 < len(p) && p[i+1] == '/' {
				parts = append(parts, p[start:i])
				start = i + 2
			}
			i++
		case '[':
			if end, _, ok := bracket(p[i:], 0); ok {
				i += end - 1
			}
		case '/':
			parts = append(parts, p[start:i])
			start = i + 1
		}
	}
	return append(parts, p[start:])
}

// ignores reports whether the rules leave out the entry called name of the directory dir, which is a
// path below the location with slashes. Whether one of the directories above is left out is not asked:
// the walk does not come there.
func (r *rules) ignores(dir, name string, isDir bool) bool {
	path := ""
	for ; r != nil; r = r.up {
		if r.deep && path == "" {
			path = join(dir, name)
		}
		for i := len(r.list) - 1; i >= 0; i-- {
			one := &r.list[i]
			if one.dirOnly && !isDir {
				continue
			}
			hit := false
			switch {
			case one.literal != "":
				hit = one.literal == name
			case one.rooted:
				below := path
				if r.base != "" {
					below = path[len(r.base)+1:]
				}
				hit = matchPath(one.parts, below)
			default:
				hit = matchName(one.parts[0], name)
			}
			if hit {
				return !one.negated
			}
		}
	}
	return false
}

// join puts a name below a path with slashes.
func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// matchPath matches a path part by part; "**" stands for any number of parts. Only the last "**" ever
// needs another try, so the work is bounded by the product of the lengths.
func matchPath(parts []string, path string) bool {
	var (
		i          int
		retry      = -1 // part after the last "**"
		retryPath  string
		pathIsDone bool
	)
	cut := func(p string) (head, rest string, done bool) {
		head, rest, more := strings.Cut(p, "/")
		return head, rest, !more
	}
	for {
		if i < len(parts) && parts[i] == "**" {
			i++
			retry, retryPath = i, path
			if pathIsDone {
				retry = -1
			}
			continue
		}
		if pathIsDone && i == len(parts) {
			return true
		}
		if !pathIsDone && i < len(parts) {
			if head, rest, done := cut(path); matchName(parts[i], head) {
				path, pathIsDone = rest, done
				i++
				continue
			}
		}
		if retry < 0 {
			return false
		}
		_, rest, done := cut(retryPath) // let "**" swallow one part more
		if done {
			return false
		}
		retryPath, path, i, pathIsDone = rest, rest, retry, false
	}
}

// matchName matches one name: * any bytes, ? one byte, [...] one byte of a set, \ the next byte itself.
func matchName(pattern, name string) bool {
	var (
		p, n         int
		starP, starN = -1, 0
	)
	for p < len(pattern) || n < len(name) {
		if p < len(pattern) {
			switch c := pattern[p]; c {
			case '*':
				starP, starN = p+1, n
				p++
				continue
			case '[':
				if n < len(name) {
					end, hit, ok := bracket(pattern[p:], name[n])
					if !ok {
						return false
					}
					if hit {
						p += end
						n++
						continue
					}
				}
			case '?':
				if n < len(name) {
					p++
					n++
					continue
				}
			default:
				size := 1
				if c == '\\' {
					if p+1 == len(pattern) {
						return false
					}
					c, size = pattern[p+1], 2
				}
				if n < len(name) && name[n] == c {
					p += size
					n++
					continue
				}
			}
		}
		if starP < 0 || starN == len(name) {
			return false
		}
		starN++
		p, n = starP, starN
	}
	return true
}

// bracket matches c against the set that pattern begins with. It returns the length of the set, and
// false for ok if it has no end or names an unknown class.
func bracket(pattern string, c byte) (size int, hit, ok bool) {
	i := 1
	negated := false
	if i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^') {
		negated = true
		i++
	}
	for first := true; ; first = false {
		if i >= len(pattern) {
			return 0, false, false
		}
		lo := pattern[i]
		switch {
		case lo == ']' && !first:
			return i + 1, hit != negated && c != '/', true
		case lo == '[' && i+1 < len(pattern) && pattern[i+1] == ':':
			end := strings.Index(pattern[i+2:], ":]")
			if end < 0 {
				return 0, false, false
			}
			in, known := class(pattern[i+2:i+2+end], c)
			if !known {
				return 0, false, false
			}
			hit = hit || in
			i += end + 4
			continue
		case lo == '\\':
			if i++; i >= len(pattern) {
				return 0, false, false
			}
			lo = pattern[i]
		}
		i++
		hi := lo
		if i+1 < len(pattern) && pattern[i] == '-' && pattern[i+1] != ']' {
			i++
			if hi = pattern[i]; hi == '\\' {
				if i++; i >= len(pattern) {
					return 0, false, false
				}
				hi = pattern[i]
			}
			i++
		}
		hit = hit || c == lo || lo <= c && c <= hi
	}
}

// class reports whether c is in a POSIX class of ASCII.
func class(name string, c byte) (in, known bool) {
	lower, upper, digit := c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9'
	switch name {
	case "alnum":
		return lower || upper || digit, true
	case "alpha":
		return lower || upper, true
	case "blank":
		return c == ' ' || c == '\t', true
	case "cntrl":
		return c < ' ' || c == 0x7f, true
	case "digit":
		return digit, true
	case "graph":
		return c > ' ' && c < 0x7f, true
	case "lower":
		return lower, true
	case "print":
		return c >= ' ' && c < 0x7f, true
	case "punct":
		return c > ' ' && c < 0x7f && !lower && !upper && !digit, true
	case "space":
		return c == ' ' || c >= '\t' && c <= '\r', true
	case "upper":
		return upper, true
	case "xdigit":
		return digit || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F', true
	}
	return false, false
}
