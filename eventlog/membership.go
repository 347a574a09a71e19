package eventlog

import "fmt"

// DeviceApproved: a person let in a device that had no secret.
type DeviceApproved struct {
	Name string `json:"name"`
	OS   string `json:"os"`
	By   string `json:"by"`
}

// DeviceRenamed: a device goes by another name.
type DeviceRenamed struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// DeviceRevoked: a device was put out of the library for good; what it wrote stays.
type DeviceRevoked struct {
	Name   string `json:"name"`
	By     string `json:"by"`     // short id of the admin, or root
	Reason string `json:"reason"` // why that counts: root or admin
}

// DeviceForgotten: a device was put out for good, and what it wrote is dropped.
type DeviceForgotten struct {
	Name   string `json:"name"`
	By     string `json:"by"`
	Reason string `json:"reason"`
}

// DeviceLeft: a device left the library by its own word.
type DeviceLeft struct {
	Name string `json:"name"`
}

func (DeviceApproved) Type() Type  { return "device_approved" }
func (DeviceRenamed) Type() Type   { return "device_renamed" }
func (DeviceRevoked) Type() Type   { return "device_revoked" }
func (DeviceForgotten) Type() Type { return "device_forgotten" }
func (DeviceLeft) Type() Type      { return "device_left" }

func (d DeviceApproved) Summary() string {
	return fmt.Sprintf("%s (%s) by the person at %s", d.Name, d.OS, d.By)
}

func (d DeviceRenamed) Summary() string   { return fmt.Sprintf("%s is called %s now", d.From, d.To) }
func (d DeviceRevoked) Summary() string   { return fmt.Sprintf("%s, by %s", d.Name, d.By) }
func (d DeviceForgotten) Summary() string { return fmt.Sprintf("%s, by %s", d.Name, d.By) }
func (d DeviceLeft) Summary() string      { return d.Name + " has left the library" }
