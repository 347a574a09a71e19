package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"peerdex/catalog"
	"peerdex/internal/english"
	"peerdex/record"
)

// idDigits is how many digits of a tag's id are enough to name it, and how many are shown.
const idDigits = 8

// tagNamed returns the tag of a name or id. It returns a Problem for an unknown one, and for a name that
// several tags have.
func tagNamed(m *catalog.Marks, name string) (catalog.Tag, error) {
	found, code, what := m.Named(name), CodeConflict, "tags are called"
	if len(found) == 0 && len(name) >= idDigits {
		found, code, what = m.WithID(strings.ToLower(name)), CodeAmbiguous, "tags have ids that begin with"
	}
	switch len(found) {
	case 0:
		return catalog.Tag{}, &Problem{Code: CodeUnknownTag, Message: fmt.Sprintf("there is no tag %q", name),
			Cause: "no tag of this library has that name or id", Try: "peer tag ls"}
	case 1:
		return found[0], nil
	}
	var ids []string
	views := []TagView{}
	for _, t := range found {
		ids = append(ids, t.ID.String()[:idDigits])
		views = append(views, tagView(t))
	}
	return catalog.Tag{}, &Problem{Code: code, Message: fmt.Sprintf("%s %s %q: %s", english.Count(len(found)), what, name, strings.Join(ids, ", ")),
		Cause: "they were made apart from each other", Try: fmt.Sprintf("name one by its id, or make them one: peer tag rename %s %s --merge", ids[0], ids[1]),
		Details: map[string]any{"tags": views}}
}

func tagView(t catalog.Tag) TagView {
	return TagView{ID: t.ID.String(), Name: t.Name, BuiltIn: t.BuiltIn}
}

// tagsShown returns the names of the tags that an entry shows.
func tagsShown(m *catalog.Marks, it catalog.Item) (names []string) {
	for _, t := range m.In(it.Location.Feed()).Tags(it.File.ID, it.File.Hash) {
		names = append(names, t.Name)
	}
	return names
}

// Tags returns every tag, with how many entries show each if counted.
func (n *Node) Tags(ctx context.Context, counted bool) ([]TagView, error) {
	start := time.Now()
	defer func() { n.metrics.Query("tags", time.Since(start)) }()
	m, err := n.catalog.Marks()
	if err != nil {
		return nil, err
	}
	out := []TagView{}
	for _, t := range m.Tags() {
		v := tagView(t)
		if counted {
			shown, err := n.catalog.Showing(ctx, m, t.ID)
			if err != nil {
				return nil, err
			}
			v.Entries = &shown
		}
		out = append(out, v)
	}
	return out, nil
}

// ChangeTags puts tags on files, folders or contents, or takes them away.
func (n *Node) ChangeTags(ctx context.Context, req TagRequest) (EditView, error) {
	if len(req.Tags) == 0 {
		return EditView{}, &Problem{Code: CodeUsage, Message: "no tag is named", Cause: "at least one is needed", Try: "peer tag ls"}
	}
	if err := n.mayEdit(ctx); err != nil {
		return EditView{}, err
	}
	targets, left, err := n.resolve(ctx, req.Targets)
	if err != nil {
		return EditView{}, err
	}
	v, err := n.changeTags(req, targets)
	if err != nil {
		return v, err
	}
	v.Targets, v.LeftOut = uint64(len(targets)), left
	n.awaitReach(ctx, &v)
	return v, nil
}

// changeTags decides and writes under n.editing: two that use a new tag at once use one.
func (n *Node) changeTags(req TagRequest, targets []target) (EditView, error) {
	n.editing.Lock()
	defer n.editing.Unlock()
	m, err := n.catalog.Marks()
	if err != nil {
		return EditView{}, err
	}
	tags, regs, err := tagsFor(m, req)
	if err != nil {
		return EditView{}, err
	}
	outcomes := map[string]int{"created": len(regs) / 2}
	still := uint64(0)
	for _, t := range targets {
		on, _ := m.Of(t.entity)
		var through []catalog.Tag
		if !req.Content && !t.hash.IsZero() {
			through, _ = m.Of(record.Content(t.hash))
		}
		shows := false
		for _, tag := range tags {
			switch has := slices.Contains(on, tag); {
			case req.Remove && has:
				for _, id := range m.Same(tag) {
					regs = append(regs, record.Register{Entity: t.entity, Field: record.TagField(id), Value: []byte{0}})
				}
				outcomes["removed"]++
			case !req.Remove && !has:
				regs = append(regs, record.Register{Entity: t.entity, Field: record.TagField(tag.ID), Value: []byte{1}})
				outcomes["added"]++
			}
			shows = shows || slices.Contains(through, tag)
		}
		if req.Remove && shows {
			still++
		}
	}
	v, err := n.commit(regs, outcomes)
	v.Still = still
	for _, t := range tags {
		v.Tags = append(v.Tags, tagView(t))
	}
	return v, err
}

// tagsFor returns the tags that a request names, each once, and the registers that make those there are not
// yet.
func tagsFor(m *catalog.Marks, req TagRequest) (tags []catalog.Tag, regs []record.Register, err error) {
	for _, name := range req.Tags {
		t, err := tagNamed(m, name)
		if p, ok := err.(*Problem); ok && p.Code == CodeUnknownTag && !req.Remove {
			if i := slices.IndexFunc(tags, func(t catalog.Tag) bool { return catalog.SameName(t.Name, name) }); i >= 0 {
				continue
			}
			if err := CheckTagName(name); err != nil {
				return nil, nil, err
			}
			t, err = catalog.Tag{Name: name}, nil
			rand.Read(t.ID[:])
			regs = append(regs, record.Register{Entity: record.Tag(t.ID), Field: record.FieldName, Value: []byte(name)},
				record.Register{Entity: record.Tag(t.ID), Field: record.FieldExists, Value: []byte{1}})
		}
		if err != nil {
			return nil, nil, err
		}
		if !slices.Contains(tags, t) {
			tags = append(tags, t)
		}
	}
	return tags, regs, nil
}

// RenameTag calls a tag something else or, if asked to, makes it one with another.
func (n *Node) RenameTag(ctx context.Context, req RenameRequest) (EditView, error) {
	return n.editTag(ctx, req.Tag, func(m *catalog.Marks, t catalog.Tag) (record.Register, string, error) {
		others := slices.DeleteFunc(slices.Clone(m.Named(req.To)), func(o catalog.Tag) bool { return o == t })
		if req.Merge {
			if len(others) != 1 { // else that is the one, though t may have the name too
				into, err := tagNamed(m, req.To)
				if err != nil {
					return record.Register{}, "", err
				}
				others = []catalog.Tag{into}
			}
			if others[0] == t {
				return record.Register{}, "", &Problem{Code: CodeUsage, Message: fmt.Sprintf("#%s and %q are one tag", t.Name, req.To),
					Cause: "two are needed to make one", Try: "peer tag ls"}
			}
			return record.Register{Entity: record.Tag(t.ID), Field: record.FieldInto, Value: others[0].ID[:]}, "merged", nil
		}
		if len(others) > 0 {
			return record.Register{}, "", &Problem{Code: CodeConflict, Message: fmt.Sprintf("there is a tag %q already", req.To),
				Cause: "it has the id " + others[0].ID.String()[:idDigits], Try: "to make one of both: add --merge"}
		}
		if err := CheckTagName(req.To); err != nil {
			return record.Register{}, "", err
		}
		return record.Register{Entity: record.Tag(t.ID), Field: record.FieldName, Value: []byte(req.To)}, "renamed", nil
	})
}

// DeleteTag makes an end of a tag, on every device. What had it has it no more, and a tag of that name made
// later is another one.
func (n *Node) DeleteTag(ctx context.Context, tag string) (EditView, error) {
	return n.editTag(ctx, tag, func(_ *catalog.Marks, t catalog.Tag) (record.Register, string, error) {
		return record.Register{Entity: record.Tag(t.ID), Field: record.FieldExists, Value: []byte{0}}, "deleted", nil
	})
}

// editTag writes the register that decide makes of a tag that is not built in.
func (n *Node) editTag(ctx context.Context, name string, decide func(*catalog.Marks, catalog.Tag) (record.Register, string, error)) (EditView, error) {
	if err := n.mayEdit(ctx); err != nil {
		return EditView{}, err
	}
	v, err := n.editTagNow(name, decide)
	if err == nil {
		n.awaitReach(ctx, &v)
	}
	return v, err
}

func (n *Node) editTagNow(name string, decide func(*catalog.Marks, catalog.Tag) (record.Register, string, error)) (EditView, error) {
	n.editing.Lock()
	defer n.editing.Unlock()
	m, err := n.catalog.Marks()
	if err != nil {
		return EditView{}, err
	}
	t, err := tagNamed(m, name)
	if err != nil {
		return EditView{}, err
	}
	if t.BuiltIn {
		return EditView{}, &Problem{Code: CodeConflict, Message: fmt.Sprintf("#%s cannot be changed", t.Name),
			Cause: "it is built in, and the same on every device", Try: "peer tag ls"}
	}
	reg, outcome, err := decide(m, t)
	if err != nil {
		return EditView{}, err
	}
	v, err := n.commit([]record.Register{reg}, map[string]int{outcome: 1})
	if m, again := n.catalog.Marks(); again == nil {
		if now, ok := m.Tag(t.ID); ok {
			v.Tags = append(v.Tags, tagView(now))
		}
	}
	return v, err
}

// Note returns what is noted of a file or folder, and its tags.
func (n *Node) Note(ctx context.Context, p PathRef) (NoteView, error) {
	s, err := n.seek()
	if err != nil {
		return NoteView{}, err
	}
	it, err := s.at(ctx, p)
	if err != nil {
		return NoteView{}, err
	}
	m, err := n.catalog.Marks()
	if err != nil {
		return NoteView{}, err
	}
	at := it.Location.Feed()
	v := NoteView{Now: time.Now(), Device: idText(at.Device), Path: it.Path, Tags: []TagView{}}
	v.Note, v.Content = m.In(at).Notes(it.File.ID, it.File.Hash)
	for _, t := range m.In(at).Tags(it.File.ID, it.File.Hash) {
		v.Tags = append(v.Tags, tagView(t))
	}
	return v, nil
}

// SetNote writes a note on files, folders or contents, in place of the one that was there.
func (n *Node) SetNote(ctx context.Context, req NoteRequest) (EditView, error) {
	if err := CheckNote(req.Text); err != nil {
		return EditView{}, err
	}
	if err := n.mayEdit(ctx); err != nil {
		return EditView{}, err
	}
	targets, left, err := n.resolve(ctx, req.Targets)
	if err != nil {
		return EditView{}, err
	}
	v, err := n.setNote(req.Text, targets)
	if err != nil {
		return v, err
	}
	v.Targets, v.LeftOut = uint64(len(targets)), left
	n.awaitReach(ctx, &v)
	return v, nil
}

func (n *Node) setNote(text string, targets []target) (EditView, error) {
	n.editing.Lock()
	defer n.editing.Unlock()
	m, err := n.catalog.Marks()
	if err != nil {
		return EditView{}, err
	}
	outcome := "added"
	if text == "" {
		outcome = "removed"
	}
	var regs []record.Register
	for _, t := range targets {
		if _, now := m.Of(t.entity); now != text {
			regs = append(regs, record.Register{Entity: t.entity, Field: record.FieldNote, Value: []byte(text)})
		}
	}
	return n.commit(regs, map[string]int{outcome: len(regs)})
}
