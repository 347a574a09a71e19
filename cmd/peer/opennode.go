package main

import (
	"context"
	"errors"
)

// openNode is the one place where the command line meets package node:
//
//	return node.Open(ctx, node.Config{Home: cfg.Home, Name: cfg.Name, …})
func openNode(context.Context, nodeConfig) (daemon, error) {
	return nil, errors.New("package node is not linked into this build")
}
