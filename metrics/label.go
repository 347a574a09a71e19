package metrics

import (
	"maps"
	"slices"
)

// The closed lists of label values. A value that is in none counts as "_other", or as what the list's
// comment says.
var (
	states           = [...]string{"uninitialized", "backfilling", "catching_up", "ready", "paused"}
	broadcastKinds   = [...]string{"state", "shared"}
	failureReasons   = [...]string{"timeout", "reset", "busy", "mismatch", "rejected", "other"} // else other
	sources          = [...]string{"live", "catch_up", "backfill", "reconcile"}
	outcomes         = [...]string{"applied", "duplicate", "superseded", "rejected", "dropped"}
	rejectionReasons = [...]string{"decode", "schema", "signature", "unauthorized", "future_clock", "missing_parent", "too_large", "other"} // else other
	sessionKinds     = [...]string{"backfill", "catch_up", "reconcile"}
	sessionResults   = [...]string{"completed", "failed", "aborted"}
	retryResults     = [...]string{"success", "failure"}
	chunkSources     = [...]string{"peer", "kept"}
	bulkDecisions    = [...]string{"fetch", "on_demand", "wait", "refuse", "in_step", "ignore"}
	lookupResults    = [...]string{"answered", "busy", "refused", "failed"}
	operations       = [...]string{"insert", "update", "delete"}
	memoryUses       = [...]string{"apply", "serve", "snapshot"}
	memoryRefusals   = [...]string{"apply", "serve", "snapshot", "frame"}
	directions       = [...]string{"in", "out"}
	watermarks       = [...]string{"state", "shared"}
	errorKinds       = [...]string{"network", "database", "apply", "validation", "protocol", "auth", "internal"} // else internal
	resolutions      = [...]string{"hlc", "tiebreak", "delete", "merge"}
	connections      = [...]string{"disconnected", "connecting", "syncing", "connected"}                                                    // else disconnected; the index is the code
	attemptResults   = [...]string{"success", "timeout", "refused", "unauthorized", "no_address", "rate_limited", "error"}                  // else error
	joinResults      = [...]string{"joined", "invite_invalid", "invite_used", "invite_expired", "not_approved", "revoked", "busy", "other"} // else other
	departures       = [...]string{"revoked", "left", "forgotten"}
	streamRefusals   = [...]string{"not_member", "revoked", "busy", "other"} // else other
	addressSources   = [...]string{"mdns", "record"}
	digestResults    = [...]string{"match", "mismatch", "incomparable"}
	scanResults      = [...]string{"added", "changed", "removed", "unchanged", "ignored", "error"}
	hashResults      = [...]string{"hashed", "changed", "unreadable"}
	categories       = [...]string{"lifecycle", "data_flow", "network", "error", "catalogue", "security", "system"}
	severities       = [...]string{"debug", "info", "warning", "error"}
	dropReasons      = [...]string{"queue_full", "store_error", "encode_error"}
	storeParts       = [...]string{"lsm", "vlog"}

	storeOperations = [...]string{"get", "put", "iterate", "commit", "gc"}                           // there from the start; others as they come
	modelNames      = [...]string{"entry", "device", "location", "member", "tag", "tagging", "note"} // likewise
)

// index returns the place of value in list, or len(list).
func index(list []string, value string) int {
	for i, v := range list {
		if v == value {
			return i
		}
	}
	return len(list)
}

// indexOr returns the place of value in list, or fallback.
func indexOr(list []string, value string, fallback int) int {
	if i := index(list, value); i < len(list) {
		return i
	}
	return fallback
}

func withOther(list []string) []string { return append(slices.Clone(list), other) }

// capped keeps one T per label value; those beyond limit share the one of "_other".
type capped[T any] struct {
	limit  int
	make   func(value string) *T // nil: zero T
	values map[string]*T
}

// get returns the T of value, and false if it is the shared one.
func (c *capped[T]) get(value string) (*T, bool) {
	if t, ok := c.values[value]; ok {
		return t, true
	}
	own := len(c.values) < c.limit || c.values[other] != nil && len(c.values) <= c.limit
	if value = label(value); !own {
		value = other
	}
	if t, ok := c.values[value]; ok { // after clipping
		return t, own
	}
	t := new(T)
	if c.make != nil {
		t = c.make(value)
	}
	if c.values == nil {
		c.values = map[string]*T{}
	}
	c.values[value] = t
	return t, own
}

// sorted returns the label values in order.
func (c *capped[T]) sorted() []string { return slices.Sorted(maps.Keys(c.values)) }

// ring keeps the last limit values.
type ring[T any] struct {
	values []T
	next   int // where the oldest is, once full
}

func (r *ring[T]) add(v T, limit int) {
	if len(r.values) < limit {
		r.values = append(r.values, v)
		return
	}
	r.values[r.next] = v
	r.next = (r.next + 1) % limit
}

// all returns the values, oldest first.
func (r *ring[T]) all() []T {
	out := make([]T, 0, len(r.values))
	return append(append(out, r.values[r.next:]...), r.values[:r.next]...)
}
