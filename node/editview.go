package node

import (
	"encoding/json"
	"time"
)

// PathRef names what lies at a path in the catalogue.
type PathRef struct {
	Device string `json:"device,omitempty"` // peer ID; empty: this device
	Path   string `json:"path"`             // absolute on its device, or a location's name with names below it
}

// Targets are what an edit is about: all of it, or nothing if one of them cannot be had.
type Targets struct {
	Paths   []PathRef         `json:"paths,omitempty"`
	Query   string            `json:"query,omitempty"`   // instead of paths: all that it finds, in the language of package query
	Names   map[string]string `json:"-"`                 // peer IDs of the devices that Query names, filled in by the API
	Content bool              `json:"content,omitempty"` // what the files hold, wherever it lies, instead of the files
}

// TagRequest puts tags on targets, or takes them away. Tags are named by their names, without #, or by their
// ids or the first digits of these.
type TagRequest struct {
	Targets
	Tags   []string `json:"tags"`
	Remove bool     `json:"remove,omitempty"` // else they are added, and made if there are none of that name
}

// NoteRequest writes a note on a target.
type NoteRequest struct {
	Targets
	Text string `json:"text"` // empty: removes the note
}

// RenameRequest calls a tag something else, or makes one of two.
type RenameRequest struct {
	Tag   string `json:"tag"`
	To    string `json:"to"`
	Merge bool   `json:"merge,omitempty"` // To is a tag, and what has Tag has that from now on
}

// TagView is one tag.
type TagView struct {
	ID      string  `json:"id"` // hex of record.TagID
	Name    string  `json:"name"`
	BuiltIn bool    `json:"built_in"`
	Entries *uint64 `json:"entries,omitempty"` // files and folders of all devices that show it; nil: not counted
}

// WrittenView is one value that an edit wrote.
type WrittenView struct {
	Entity string `json:"entity"` // kind and id
	Field  string `json:"field"`
	Stamp  string `json:"stamp"` // hybrid time
}

// maxWritten is how many values of one edit are listed.
const maxWritten = 10_000

// EditView is the outcome of an edit. It is durable here; Reached names who has it too.
type EditView struct {
	Now     time.Time     `json:"now"`
	Targets uint64        `json:"targets"`            // files, folders or contents that were named
	Changed uint64        `json:"changed"`            // of those
	Tags    []TagView     `json:"tags,omitempty"`     // that it is about, as they are now
	Still   uint64        `json:"still"`              // targets that still show a tag removed from them, because their content has it
	Written []WrittenView `json:"written"`            // the first 10,000
	Reached []string      `json:"reached"`            // names of devices that hold it durably
	Pending []string      `json:"pending"`            // connected, and not there yet
	Away    []string      `json:"away"`               // not connected or paused: they learn of it later
	LeftOut []string      `json:"left_out,omitempty"` // lazy locations, as device:name, that a query was not put to
}

// NoteView is what is noted of one file or folder.
type NoteView struct {
	Now     time.Time `json:"now"`
	Device  string    `json:"device"`
	Path    string    `json:"path"`
	Note    string    `json:"note"`    // of the entry
	Content string    `json:"content"` // of its content
	Tags    []TagView `json:"tags"`    // that it shows
}

type plainPathRef PathRef

type pathRefJSON struct {
	plainPathRef
	PathB64 []byte `json:"path_b64,omitempty"`
}

// MarshalJSON keeps the path's bytes.
func (p PathRef) MarshalJSON() ([]byte, error) {
	return json.Marshal(pathRefJSON{plainPathRef(p), raw(p.Path)})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (p *PathRef) UnmarshalJSON(b []byte) error {
	var j pathRefJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*p = PathRef(j.plainPathRef)
	restore(&p.Path, j.PathB64)
	return nil
}

type plainTag TagView

type tagJSON struct {
	plainTag
	NameB64 []byte `json:"name_b64,omitempty"`
}

// MarshalJSON keeps the name's bytes.
func (t TagView) MarshalJSON() ([]byte, error) {
	return json.Marshal(tagJSON{plainTag(t), raw(t.Name)})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (t *TagView) UnmarshalJSON(b []byte) error {
	var j tagJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*t = TagView(j.plainTag)
	restore(&t.Name, j.NameB64)
	return nil
}

type plainNote NoteView

type noteJSON struct {
	plainNote
	PathB64    []byte `json:"path_b64,omitempty"`
	NoteB64    []byte `json:"note_b64,omitempty"`
	ContentB64 []byte `json:"content_b64,omitempty"`
}

// MarshalJSON keeps the bytes of the path and the notes.
func (v NoteView) MarshalJSON() ([]byte, error) {
	return json.Marshal(noteJSON{plainNote(v), raw(v.Path), raw(v.Note), raw(v.Content)})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (v *NoteView) UnmarshalJSON(b []byte) error {
	var j noteJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*v = NoteView(j.plainNote)
	restore(&v.Path, j.PathB64)
	restore(&v.Note, j.NoteB64)
	restore(&v.Content, j.ContentB64)
	return nil
}
