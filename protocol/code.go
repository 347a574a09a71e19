package protocol

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/libp2p/go-libp2p/core/network"
)

// Code says why a stream or a request was ended. Its number travels as the libp2p stream reset code and
// in Refused; its name is the label of metrics and events. A Code is an error: handlers may return one,
// and errors.Is(err, CodeBusy) finds it in an *Error.
type Code uint32

// Code numbers are the protocol. Append only; never renumber or reuse. libp2p keeps 0x1001 to 0x1009.
const (
	CodeMalformed     Code = 0x101 // bytes that are no message of the protocol
	CodeTooLarge      Code = 0x102 // a length or count beyond its limit
	CodeChecksum      Code = 0x103 // a frame that does not match its CRC32C
	CodeUnknownType   Code = 0x104 // a message number nobody knows
	CodeUnexpected    Code = 0x105 // a message that does not belong here or now
	CodeVersion       Code = 0x106 // no common protocol version
	CodeLibrary       Code = 0x107 // the other side belongs to another library
	CodeNotMember     Code = 0x108 // the device is no member, or not any more
	CodeUnauthorized  Code = 0x109 // a member asked for what it may not have
	CodeNotSettled    Code = 0x10A // not settled on the feed: nothing to serve from (rule 6)
	CodeUnknownFeed   Code = 0x10B // nothing is held of the feed
	CodeBusy          Code = 0x10C // too much to do; try again later
	CodeMismatch      Code = 0x10D // entries or hashes that do not add up to the signed head
	CodeTimeout       Code = 0x10E // no progress within a deadline
	CodeShutdown      Code = 0x10F // the node is stopping
	CodeInternal      Code = 0x110 // this side failed; no fault of the other
	CodeLost          Code = 0x111 // the stream or connection broke without a word
	CodeUnsupported   Code = 0x112 // the other side does not speak the stream protocol
	CodeInviteInvalid Code = 0x113 // no such invite, or its secret is wrong: the two look alike
	CodeInviteUsed    Code = 0x114 // the invite was used up
	CodeInviteExpired Code = 0x115 // the invite's time is over
	CodePaused        Code = 0x116 // a person or policy paused the node
	CodeNotApproved   Code = 0x117 // a person said no to a device that asked to join
	CodeRevoked       Code = 0x118 // the device was put out of the library for good
)

// Reasons a Redeem function refuses an invite with. The first two share one code, so that the other side
// cannot tell them apart.
var (
	ErrInviteUnknown = errors.New("no such invite")
	ErrInviteSecret  = errors.New("wrong invite secret")
	ErrInviteUsed    = errors.New("invite was used already")
	ErrInviteExpired = errors.New("invite has expired")
)

// codes is the one table between Go errors, reset codes and labels.
var codes = []struct {
	code  Code
	label string
	text  string
	fault bool    // raised here, it accuses the other side of breaking the protocol
	errs  []error // Go errors that carry the code over the wire
}{
	{CodeMalformed, "malformed", "malformed message", true, nil},
	{CodeTooLarge, "too_large", "larger than the limit", true, nil},
	{CodeChecksum, "checksum", "checksum does not match", true, nil},
	{CodeUnknownType, "unknown_type", "unknown message type", true, nil},
	{CodeUnexpected, "unexpected", "unexpected message", true, nil},
	{CodeVersion, "version", "no common protocol version", false, nil},
	{CodeLibrary, "library", "belongs to another library", false, nil},
	{CodeNotMember, "not_member", "not a member of the library", false, nil},
	{CodeUnauthorized, "unauthorized", "not allowed", true, nil},
	{CodeNotSettled, "not_settled", "not settled on the feed", false, nil},
	{CodeUnknownFeed, "unknown_feed", "feed is not held", false, nil},
	{CodeBusy, "busy", "too busy", false, []error{network.ErrResourceLimitExceeded}},
	{CodeMismatch, "mismatch", "does not add up to the signed head", true, nil},
	{CodeTimeout, "timeout", "no progress in time", false, []error{context.DeadlineExceeded}},
	{CodeShutdown, "shutdown", "shutting down", false, []error{context.Canceled}},
	{CodeInternal, "internal", "internal error", false, nil},
	{CodeLost, "lost", "stream broke", false, nil},
	{CodeUnsupported, "unsupported", "stream protocol is not spoken", false, nil},
	{CodeInviteInvalid, "invite_invalid", "no such invite, or a wrong secret", false, []error{ErrInviteUnknown, ErrInviteSecret}},
	{CodeInviteUsed, "invite_used", "invite was used already", false, []error{ErrInviteUsed}},
	{CodeInviteExpired, "invite_expired", "invite has expired", false, []error{ErrInviteExpired}},
	{CodePaused, "paused", "paused", false, nil},
	{CodeNotApproved, "not_approved", "a person said no", false, nil},
	{CodeRevoked, "revoked", "put out of the library for good", false, nil},
}

// Label returns the code's name for metrics and events: one of a closed set, "other" for a number of a
// newer version.
func (c Code) Label() string {
	if i := c.row(); i >= 0 {
		return codes[i].label
	}
	return "other"
}

// Error returns a sentence's worth of what the code means.
func (c Code) Error() string {
	if i := c.row(); i >= 0 {
		return codes[i].text
	}
	return fmt.Sprintf("code %#x", uint32(c))
}

func (c Code) row() int {
	if i := int(c) - int(CodeMalformed); i >= 0 && i < len(codes) {
		return i
	}
	return -1
}

// Error is the end of a stream or request with the reason. Conn returns nothing else but io.EOF.
type Error struct {
	Code   Code
	Detail string // our own words with numbers and quoted text; stays on this side
	Remote bool   // the other side said so
	ended  bool   // this side had reset the stream, for a reason told elsewhere
	stall  string // what was being sent when the other side did not read
	cause  error
}

func (e *Error) Error() string {
	text := e.Code.Error()
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if e.Remote {
		text += " (said by the other side)"
	}
	return text
}

// Is makes errors.Is(err, CodeBusy) work.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code
}

func (e *Error) Unwrap() error { return e.cause }

// Fault reports whether the error accuses the other side of breaking the protocol: what is counted
// against it.
func (e *Error) Fault() bool {
	i := e.Code.row()
	return !e.Remote && !e.ended && i >= 0 && codes[i].fault
}

// Ended reports whether the error is nothing new: what was under way on a stream that this side reset.
func (e *Error) Ended() bool { return e.ended }

// Stalled returns what was being sent if the stream ended because the other side did not read for too long; else "".
func (e *Error) Stalled() string { return e.stall }

// CodeOf returns the code that err means on the wire: its own if it holds an *Error or a Code, one of
// the table for errors known there, CodeTimeout for deadlines, else CodeInternal. It returns 0 for nil.
func CodeOf(err error) Code {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	if c, ok := errors.AsType[Code](err); ok {
		return c
	}
	for _, row := range codes {
		for _, known := range row.errs {
			if errors.Is(err, known) {
				return row.code
			}
		}
	}
	if timedOut(err) {
		return CodeTimeout
	}
	return CodeInternal
}

func timedOut(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// fromReset returns the code for a reset code received: our own as it is, libp2p's in our terms.
func fromReset(n network.StreamErrorCode) Code {
	switch n {
	case network.StreamProtocolNegotiationFailed:
		return CodeUnsupported
	case network.StreamResourceLimitExceeded, network.StreamRateLimited:
		return CodeBusy
	case network.StreamShutdown:
		return CodeShutdown
	case network.StreamGated:
		return CodeNotMember
	}
	if n < 0x100 || n >= 0x1000 {
		return CodeLost
	}
	return Code(n)
}

func faultf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

func malformed(format string, args ...any) *Error { return faultf(CodeMalformed, format, args...) }

func tooLarge(what string, n, limit int) *Error {
	return faultf(CodeTooLarge, "%s of %d, limit %d", what, n, limit)
}
