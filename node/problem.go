package node

import (
	"net/http"
)

// Code says what kind of problem stopped a request. The list is closed; each code has one exit code and
// one HTTP status.
type Code string

// Codes are part of the API. Append only.
const (
	CodeInternal Code = "internal" // unexpected: a bug, I/O
	// CodeUsage and the four after it: the request itself is wrong.
	CodeUsage      Code = "usage"
	CodeBadTime    Code = "bad_time"
	CodeBadAddress Code = "bad_address" // not a multiaddr, or without /p2p/
	CodeAmbiguous  Code = "ambiguous"   // a name fits several things; Details lists them
	CodeBadQuery   Code = "bad_query"   // Details: QueryFault
	CodeNoDaemon   Code = "no_daemon"
	// CodeNotAllowed and the three after it: refused.
	CodeNotAllowed    Code = "not_allowed"
	CodeInviteWrong   Code = "invite_wrong"
	CodeInviteUsed    Code = "invite_used"
	CodeInviteExpired Code = "invite_expired"
	// CodeNotFound and the three after it: what was named is unknown.
	CodeNotFound        Code = "not_found" // a path
	CodeUnknownDevice   Code = "unknown_device"
	CodeUnknownLocation Code = "unknown_location"
	CodeUnknownTag      Code = "unknown_tag"
	// CodeAlreadyRunning and those up to CodeConflict: the state forbids it.
	CodeAlreadyRunning Code = "already_running" // another process has this home; Details: pid, started
	CodeHomeUnsafe     Code = "home_unsafe"     // open to others, a symlink, or of another user
	CodeNewerSchema    Code = "newer_schema"    // the home was written by a newer version
	CodePortInUse      Code = "port_in_use"
	CodeFolderMissing  Code = "folder_missing"
	CodeNotFolder      Code = "not_a_folder"
	CodeFolderOverlap  Code = "folder_overlaps" // inside another location, or around it
	CodeOtherLibrary   Code = "other_library"   // this device already belongs to a library with content
	CodeClock          Code = "clock"           // this device's clock cannot be right
	CodeConflict       Code = "conflict"        // any other state that forbids it
	CodeUnreachable    Code = "unreachable"     // Details: []AddressResult
	CodeIntegrity      Code = "integrity"       // a digest or the store is wrong
	CodeInterrupted    Code = "interrupted"
)

// codes is the one table of exit codes and HTTP statuses.
var codes = map[Code]struct{ exit, status int }{
	CodeInternal:        {1, http.StatusInternalServerError},
	CodeUsage:           {2, http.StatusBadRequest},
	CodeBadTime:         {2, http.StatusBadRequest},
	CodeBadAddress:      {2, http.StatusBadRequest},
	CodeAmbiguous:       {2, http.StatusBadRequest},
	CodeBadQuery:        {2, http.StatusBadRequest},
	CodeNoDaemon:        {3, http.StatusServiceUnavailable},
	CodeNotAllowed:      {4, http.StatusForbidden},
	CodeInviteWrong:     {4, http.StatusForbidden},
	CodeInviteUsed:      {4, http.StatusForbidden},
	CodeInviteExpired:   {4, http.StatusForbidden},
	CodeNotFound:        {5, http.StatusNotFound},
	CodeUnknownDevice:   {5, http.StatusNotFound},
	CodeUnknownLocation: {5, http.StatusNotFound},
	CodeUnknownTag:      {5, http.StatusNotFound},
	CodeFolderMissing:   {5, http.StatusNotFound},
	CodeAlreadyRunning:  {7, http.StatusConflict},
	CodeHomeUnsafe:      {7, http.StatusConflict},
	CodeNewerSchema:     {7, http.StatusConflict},
	CodePortInUse:       {7, http.StatusConflict},
	CodeNotFolder:       {2, http.StatusBadRequest},
	CodeFolderOverlap:   {7, http.StatusConflict},
	CodeOtherLibrary:    {7, http.StatusConflict},
	CodeClock:           {7, http.StatusConflict},
	CodeConflict:        {7, http.StatusConflict},
	CodeUnreachable:     {8, http.StatusBadGateway},
	CodeIntegrity:       {9, http.StatusInternalServerError},
	CodeInterrupted:     {130, 499},
}

// Codes returns every code, for tests and documentation; the order means nothing.
func Codes() []Code {
	out := make([]Code, 0, len(codes))
	for c := range codes {
		out = append(out, c)
	}
	return out
}

// Exit returns the exit code of a command that ends with c; 1 for a code of a newer version.
func (c Code) Exit() int {
	if e, ok := codes[c]; ok {
		return e.exit
	}
	return 1
}

// Status returns the HTTP status that carries c; 500 for a code of a newer version.
func (c Code) Status() int {
	if e, ok := codes[c]; ok {
		return e.status
	}
	return http.StatusInternalServerError
}

// Problem is an error made for people: what failed, why, what to do. Nothing was changed by the request
// that ended with one, unless Message says otherwise.
type Problem struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`           // what failed, without "error:"
	Cause   string `json:"cause,omitempty"`   // why
	Try     string `json:"hint,omitempty"`    // a command to paste, or what to do
	Details any    `json:"details,omitempty"` // marshals to JSON
}

func (p *Problem) Error() string {
	if p.Cause != "" {
		return p.Message + ": " + p.Cause
	}
	return p.Message
}

// AddressResult is what came of dialing one address.
type AddressResult struct {
	Address string `json:"address"`
	Result  string `json:"result"` // "timed out after 5 s", "connection refused", …
}
