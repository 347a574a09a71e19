package api

import (
	"net/http"

	"peerdex/node"
)

// setting is what is to change of a location: one of Hash, of a folder of this device, and Fetch, of another's.
type setting struct {
	place
	Hash  string     `json:"hash,omitempty"`
	Fetch node.Fetch `json:"fetch,omitempty"`
}

func (s Server) setLocation(w http.ResponseWriter, r *http.Request) error {
	var req setting
	if err := readBody(r, &req); err != nil {
		return err
	}
	if req.Hash != "" && req.Fetch != "" {
		return usage("two things cannot be set of one location", "a folder of this device is hashed here, one of another device is fetched", "peer help locations set")
	}
	if req.Fetch != "" {
		l, err := s.anyLocation(r.Context(), req.name())
		if err != nil {
			return err
		}
		if err := unhurried(w); err != nil {
			return err
		}
		v, err := s.Backend.SetFetch(r.Context(), l.Device, l.ID, req.Fetch)
		return answer(w, SchemaLocation, v, err)
	}
	id, err := s.location(r.Context(), req.name())
	if err != nil {
		return err
	}
	v, err := s.Backend.SetHashing(r.Context(), id, req.Hash)
	return answer(w, SchemaLocation, v, err)
}
