package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/multiformats/go-multiaddr"

	"peerdex/api"
	"peerdex/node"
)

// nodeConfig is what the command line says about a node; zero values mean the node's defaults.
type nodeConfig struct {
	Home    string
	Version string
	Name    string
	Listen  []multiaddr.Multiaddr
	Pubsub  bool
	MDNS    bool
	Rescan  time.Duration
	Log     *slog.Logger

	Thresholds node.Thresholds
}

// daemon is a node as start drives it. Run blocks until ctx ends or something stopped the node; Close
// comes after Run has returned.
type daemon interface {
	api.Backend
	Run(ctx context.Context) error
	Close() error
}

// opener opens the node of a home, which must exist. Its errors may be *node.Problem.
type opener func(ctx context.Context, cfg nodeConfig) (daemon, error)
