package main

import (
	"context"

	"peerdex/node"
)

// openNode is the one place where the command line meets package node.
func openNode(_ context.Context, cfg nodeConfig) (daemon, error) {
	return node.Open(node.Config{Home: cfg.Home, Listen: cfg.Listen, Name: cfg.Name, Pubsub: cfg.Pubsub, MDNS: cfg.MDNS, Rescan: cfg.Rescan, Thresholds: cfg.Thresholds, Version: cfg.Version, Log: cfg.Log})
}
