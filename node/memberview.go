package node

import "time"

// Ways in which a device is out of the library, as DeviceView.Gone says it.
const (
	GoneRevoked   = "revoked"
	GoneLeft      = "left"
	GoneForgotten = "forgotten"
)

// RequestView is a device that asks to join without a secret.
type RequestView struct {
	Digits  string    `json:"digits"` // that it shows as well
	ID      string    `json:"id"`     // libp2p peer ID
	Short   string    `json:"short"`
	Name    string    `json:"name"`         // as it calls itself
	As      string    `json:"as,omitempty"` // once approved: what it is called, because that name is taken
	OS      string    `json:"os,omitempty"`
	Version string    `json:"version,omitempty"`
	Since   time.Time `json:"since"`
	Expires time.Time `json:"expires"`
	Approve string    `json:"approve"` // the command that approves it
}

// RemoveRequest puts a device out of the library.
type RemoveRequest struct {
	Device string `json:"device"`            // peer ID
	Forget bool   `json:"forget,omitempty"`  // what it wrote goes too, on every device
	DryRun bool   `json:"dry_run,omitempty"` // say what would be, and change nothing
}

// RemoveView is a device that was put out, or would be.
type RemoveView struct {
	Device DeviceView `json:"device"` // as it was
	Forget bool       `json:"forget"`
	DryRun bool       `json:"dry_run"`
	Kept   []string   `json:"kept"`  // names of devices that the one put out had let in, and that stay
	Told   []string   `json:"told"`  // names of devices that know of it
	Later  []string   `json:"later"` // names of those that do not yet
}

// RenameView is a device's new name.
type RenameView struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// LeaveView is what became of a device that left its library, or would become.
type LeaveView struct {
	DryRun  bool     `json:"dry_run"`
	From    string   `json:"from"`     // library left, in hex
	To      string   `json:"to"`       // its own, in hex; empty in a dry run
	Told    []string `json:"told"`     // names of devices that know of it
	Later   []string `json:"later"`    // names of those that do not yet
	RootKey string   `json:"root_key"` // file that keeps the root key of the library left, if this device had it
}
