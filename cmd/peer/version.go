package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is what this build calls itself.
const version = "0.1.0"

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Example: "peer version\n" +
			"peer version --json\n" +
			"peer version --json | jq -r .revision",
		Annotations: exits(2),
		Args:        arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version  string `json:"version"`
				Revision string `json:"revision,omitempty"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
			}{version, revision(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			if a.json {
				return a.document("peer.version/v1", v)
			}
			return a.print("peer %s %s%s %s\n", v.Version, v.Platform, map[bool]string{true: " " + v.Revision}[v.Revision != ""], v.Go)
		},
	}
}

// revision is the commit this was built from, as far as the build knows.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value[:min(12, len(s.Value))]
		}
	}
	return ""
}
