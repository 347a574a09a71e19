package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"peerdex/eventlog"
	"peerdex/node"
)

// Schemas name what a document is. Fields are only ever added to a version; readers ignore those they
// do not know.
const (
	SchemaStatus     = "peer.status/v1"
	SchemaDevices    = "peer.devices/v1"
	SchemaLocations  = "peer.locations/v1"
	SchemaLocation   = "peer.location/v1"
	SchemaScan       = "peer.scan/v1"
	SchemaListing    = "peer.listing/v1"
	SchemaFind       = "peer.find/v1"
	SchemaTags       = "peer.tags/v1"
	SchemaEdit       = "peer.edit/v1"
	SchemaNote       = "peer.note/v1"
	SchemaWhere      = "peer.where/v1"
	SchemaInfo       = "peer.info/v1"
	SchemaInvite     = "peer.invite/v1"
	SchemaJoin       = "peer.join/v1"
	SchemaRequests   = "peer.requests/v1"
	SchemaRequest    = "peer.request/v1"
	SchemaRemoval    = "peer.removal/v1"
	SchemaRenaming   = "peer.renaming/v1"
	SchemaLeaving    = "peer.leaving/v1"
	SchemaDevice     = "peer.device/v1"
	SchemaStop       = "peer.stop/v1"
	SchemaSnapshot   = "peer.snapshot/v1"
	SchemaSyncStatus = "peer.sync_status/v1"
	SchemaPause      = "peer.pause/v1"
	SchemaSyncNow    = "peer.sync_now/v1"
	SchemaSyncPlan   = "peer.sync_plan/v1"
	SchemaMetrics    = "peer.metrics/v1"
	SchemaEvents     = "peer.events/v1"
	SchemaEvent      = "peer.event/v1" // of a line of a stream
	SchemaError      = "peer.error/v1"
)

// Document returns the JSON of v, which must marshal to an object, with its schema as the first field.
func Document(schema string, v any) ([]byte, error) { return document(schema, "", v) }

// Line returns one line of a stream: a Document that also says its type, ended by a newline.
func Line(schema, kind string, v any) ([]byte, error) {
	b, err := document(schema, kind, v)
	return append(b, '\n'), err
}

// typeOf returns the type of a line that Line made, where it stands behind the schema; "" for any other.
func typeOf(line []byte) string {
	rest, ok := bytes.CutPrefix(line, []byte(`{"schema":"`))
	_, rest, typed := bytes.Cut(rest, []byte(`","type":"`))
	kind, _, ended := bytes.Cut(rest, []byte(`"`))
	if !ok || !typed || !ended {
		return ""
	}
	return string(kind)
}

func document(schema, kind string, v any) ([]byte, error) {
	body, err := marshal(withoutNil(v))
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", schema, err)
	}
	if len(body) < 2 || body[0] != '{' {
		return nil, fmt.Errorf("encode %s: %T is no JSON object", schema, v)
	}
	out := append(make([]byte, 0, len(body)+64), `{"schema":"`...) // neither name holds what JSON escapes
	out = append(append(out, schema...), '"')
	if kind != "" {
		out = append(append(append(out, `,"type":"`...), kind...), '"')
	}
	out = append(out, '}')
	if bytes.Equal(body, []byte("{}")) {
		return out, nil
	}
	out[len(out)-1] = ','
	return eventlog.VisibleJSON(append(out, body[1:]...)), nil
}

// marshal is json.Marshal without its second pass over what writes its own JSON.
func marshal(v any) ([]byte, error) {
	if m, ok := v.(json.Marshaler); ok {
		return m.MarshalJSON()
	}
	return json.Marshal(v)
}

// unmarshal is json.Unmarshal without its second pass over what reads its own JSON.
func unmarshal(b []byte, v any) error {
	if u, ok := v.(json.Unmarshaler); ok {
		return u.UnmarshalJSON(b)
	}
	return json.Unmarshal(b, v)
}

// withoutNil returns v with empty lists in place of nil ones, because an empty list is [] and never null.
// It looks into structs, not into the elements of lists.
func withoutNil(v any) any {
	in := reflect.ValueOf(v)
	if in.Kind() != reflect.Struct {
		return v
	}
	out := reflect.New(in.Type()).Elem()
	out.Set(in)
	fill(out)
	return out.Interface()
}

func fill(v reflect.Value) {
	for i := range v.NumField() {
		f := v.Field(i)
		switch {
		case !f.CanSet():
		case f.Kind() == reflect.Struct:
			fill(f)
		case f.Kind() == reflect.Slice && f.IsNil() && f.Type().Elem().Kind() != reflect.Uint8:
			f.Set(reflect.MakeSlice(f.Type(), 0, 0))
		}
	}
}

// ErrorDocument is how a problem travels and how `--json` shows it.
type ErrorDocument struct {
	Error *node.Problem `json:"error"`
}

// AsProblem returns err as the problem that a person is shown: the *node.Problem in it, or one of
// node.CodeInterrupted for an ended context, or else of node.CodeInternal.
func AsProblem(err error) *node.Problem {
	var p *node.Problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, context.Canceled):
		return &node.Problem{Code: node.CodeInterrupted, Message: "interrupted"}
	}
	return &node.Problem{Code: node.CodeInternal, Message: "unexpected failure", Cause: err.Error(), Try: "PEER_LOG=debug peer start says more"}
}

type devices struct {
	Devices []node.DeviceView `json:"devices"`
}

type locations struct {
	Locations []node.LocationView `json:"locations"`
}
