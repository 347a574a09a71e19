package api

import (
	"fmt"
	"slices"
	"strings"

	"peerdex/node"
)

// Candidate is one of several things that an ambiguous name may mean.
type Candidate struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Device string `json:"device,omitempty"`
}

// ResolveDevice finds the device that ref names: its peer ID or its short id with or without the dash, its
// name, or a prefix of one of them that fits no other device. Whole ids win over names, which a device may
// give itself as it likes, whole names over prefixes, and members over devices that are out. Names are
// compared as node.FoldName does. It returns a *node.Problem with node.CodeUnknownDevice or node.CodeAmbiguous.
func ResolveDevice(devices []node.DeviceView, ref string) (node.DeviceView, error) {
	names := make([]string, len(devices))
	short := func(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "")) }
	found := match(len(devices), func(i int, whole bool) bool {
		return whole && (short(devices[i].Short) == short(ref) || devices[i].ID == ref)
	})
	if len(found) == 0 {
		found = match(len(devices), func(i int, whole bool) bool {
			d := devices[i]
			names[i] = d.Name
			if whole {
				return node.FoldName(d.Name) == node.FoldName(ref)
			}
			return strings.HasPrefix(node.FoldName(d.Name), node.FoldName(ref)) ||
				strings.HasPrefix(short(d.Short), short(ref)) || strings.HasPrefix(d.ID, ref)
		})
	}
	if ref == "" {
		found = nil
	}
	if in := slices.DeleteFunc(slices.Clone(found), func(i int) bool { return devices[i].Gone != "" }); len(in) > 0 {
		found = in
	}
	switch len(found) {
	case 1:
		return devices[found[0]], nil
	case 0:
		return node.DeviceView{}, unknown(node.CodeUnknownDevice, "device", ref, names, "peer devices")
	}
	list := make([]Candidate, 0, len(found))
	for _, i := range found {
		list = append(list, Candidate{ID: devices[i].Short, Name: devices[i].Name})
	}
	return node.DeviceView{}, ambiguous("device", ref, list)
}

// ResolveLocation finds the location that ref names: its name, path, "device:name", id, or a unique
// prefix of name or id. Locations of this device win over those of others. Its errors are like
// ResolveDevice's, with node.CodeUnknownLocation.
func ResolveLocation(locations []node.LocationView, ref string) (node.LocationView, error) {
	names := make([]string, len(locations))
	try := func(self bool) []int {
		return match(len(locations), func(i int, whole bool) bool {
			l := locations[i]
			names[i] = l.Name
			switch {
			case self && !l.Self:
				return false
			case whole:
				return l.Name == ref || l.Path == ref || l.ID == ref || l.DeviceName+":"+l.Name == ref
			}
			return strings.HasPrefix(strings.ToLower(l.Name), strings.ToLower(ref)) || strings.HasPrefix(l.ID, ref)
		})
	}
	found := try(true)
	if len(found) == 0 {
		found = try(false)
	}
	if ref == "" {
		found = nil
	}
	switch len(found) {
	case 1:
		return locations[found[0]], nil
	case 0:
		return node.LocationView{}, unknown(node.CodeUnknownLocation, "location", ref, names, "peer locations")
	}
	list := make([]Candidate, 0, len(found))
	for _, i := range found {
		l := locations[i]
		list = append(list, Candidate{ID: l.ID[:min(8, len(l.ID))], Name: l.Name, Device: l.DeviceName})
	}
	return node.LocationView{}, ambiguous("location", ref, list)
}

// match returns the indexes that fit whole or, if there are none, by prefix.
func match(n int, fits func(i int, whole bool) bool) []int {
	var whole, prefix []int
	for i := range n {
		if fits(i, true) {
			whole = append(whole, i)
		} else if fits(i, false) {
			prefix = append(prefix, i)
		}
	}
	if len(whole) > 0 {
		return whole
	}
	return prefix
}

func ambiguous(what, ref string, list []Candidate) error {
	var b strings.Builder
	ids := make([]string, 0, len(list))
	for i, c := range list {
		ids = append(ids, c.ID)
		if i > 0 {
			b.WriteString(", ")
		}
		if c.Device != "" {
			fmt.Fprintf(&b, "%s:", c.Device)
		}
		fmt.Fprintf(&b, "%s (%s)", c.Name, c.ID)
	}
	return &node.Problem{
		Code:    node.CodeAmbiguous,
		Message: fmt.Sprintf("%s %q is ambiguous: %s", what, ref, b.String()),
		Cause:   fmt.Sprintf("it fits %d of them", len(list)),
		Try:     "a longer part of the name, or the id: " + strings.Join(ids, " or "),
		Details: map[string]any{"candidates": list},
	}
}

func unknown(code node.Code, what, ref string, names []string, command string) error {
	cause := fmt.Sprintf("this library has no %s of that name or id", what)
	if near := Nearest(ref, names); near != "" {
		cause = fmt.Sprintf("the nearest name is %q", near)
	}
	return &node.Problem{
		Code:    code,
		Message: fmt.Sprintf("there is no %s %q", what, ref),
		Cause:   cause,
		Try:     command,
	}
}

// Nearest returns the name at most two slips of the keyboard from typed, or "".
func Nearest(typed string, names []string) string {
	best, at := "", 3
	for _, n := range names {
		if len(n) > 64 || len(typed) > 64 {
			continue
		}
		if d := slips(strings.ToLower(typed), strings.ToLower(n)); d < at && d < len(n) {
			best, at = n, d
		}
	}
	return best
}

// slips is the distance of optimal string alignment in bytes: one for a byte added, left out, changed, or
// exchanged with its neighbour.
func slips(a, b string) int {
	var before, last, row []int
	row = make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := last[j]
			if a[i] != b[j] {
				cost++
			}
			row[j+1] = min(cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
