package api

import "net/http"

// setting is what is to change of a location.
type setting struct {
	place
	Hash string `json:"hash"`
}

func (s Server) setLocation(w http.ResponseWriter, r *http.Request) error {
	var req setting
	if err := readBody(r, &req); err != nil {
		return err
	}
	id, err := s.location(r.Context(), req.name())
	if err != nil {
		return err
	}
	v, err := s.Backend.SetHashing(r.Context(), id, req.Hash)
	return answer(w, SchemaLocation, v, err)
}
