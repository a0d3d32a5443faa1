package sim

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// The names of the quirks.
const (
	quirkSlotOver32           = "slot-over-32"
	quirkDuplicateSlot        = "duplicate-slot"
	quirkExistingFile         = "existing-file"
	quirkMissingDirectory     = "missing-directory"
	quirkResizeBouncesExport  = "resize-bounces-export"
	quirkGrowthVisible        = "growth-visible"
	quirkShrink               = "shrink"
	quirkRemoveWhileConnected = "remove-while-connected"
	quirkRemoveUsedFile       = "remove-used-file"
	quirkImageGone            = "image-gone"
	quirkIdentifiers          = "identifiers-on-reexport"
	quirkExportsAfterReboot   = "exports-after-reboot"
	quirkExitStatus           = "exit-status"
	quirkErrorLocation        = "error-location"
	quirkNewFileContent       = "new-file-content"
	quirkChannelLimit         = "channel-limit"
	quirkChannelOverLimit     = "channel-over-limit"
	quirkCommandLimit         = "command-limit"
	quirkSpareIdleTimeout     = "spare-idle-timeout"
	quirkRebootTime           = "reboot-time"
	quirkCommandTime          = "command-time"
	quirkMaxSessions          = "max-sessions"
	quirkHealth               = "health"
	quirkMonitorPolicy        = "monitor-policy"
	quirkMonitorFiles         = "monitor-files"
	quirkMonitorValues        = "monitor-values"
	quirkMonitorOne           = "monitor-one"

	quirkSubvolumeInDirectory = "subvolume-in-directory"
	quirkSubvolumeRemoval     = "subvolume-removal"
	quirkCopyTime             = "file-copy-time"
	quirkCopySize             = "file-copy-size"
	quirkCopyReturns          = "file-copy-returns"
	quirkCopyExisting         = "file-copy-existing"
	quirkExecuteReturns       = "execute-returns"
)

// The values of quirks that are compared with.
const (
	accept     = "accept"
	allow      = "allow"
	asMap      = "map"
	asSettings = "settings"
	asText     = "text"
	atOnce     = "at-once"
	change     = "change"
	create     = "create"
	dead       = "dead"
	failing    = "error"
	lost       = "lost"
	missing    = "missing"
	none       = "none"
	noSize     = "no-size"
	nonzero    = "nonzero"
	notify     = "notify"
	random     = "random"
	overwrite  = "overwrite"
	reconnect  = "reconnect"
	reexport   = "reexport"
	refuse     = "refuse"
	started    = "started"
	truncate   = "truncate"
	wait       = "wait"
	yes        = "yes"
	no         = "no"
)

// Kinds of quirk values that are not words.
const (
	aNumber   = "NUMBER"
	aDuration = "DURATION"
)

// Quirk is one switch of the device.
type Quirk struct {
	Name    string
	Default string
	Values  []string // words, or NUMBER or DURATION alone
	Meaning string
}

// Quirks lists every switch. What stands first in Values is not the default: Default is, and it is what is most
// likely of a real RDS or, where nothing points either way, what is harsher to a driver.
func Quirks() []Quirk {
	return []Quirk{
		{quirkSlotOver32, failing, []string{failing, truncate, accept},
			"a slot name of more than 32 characters is refused, cut or taken"},
		{quirkDuplicateSlot, failing, []string{failing, accept},
			"a slot name that is in use is refused, or taken: two items of one name"},
		{quirkExistingFile, "reuse", []string{"reuse", failing},
			"/disk/add over an existing file opens it as it is, or fails"},
		{quirkMissingDirectory, failing, []string{create, failing},
			"a directory missing in a path is made, or the command fails"},
		{quirkResizeBouncesExport, no, []string{yes, no},
			"set file-size of an exported item takes the export away and makes it again"},
		{quirkGrowthVisible, "rescan", []string{notify, "rescan", reconnect, reexport},
			"a connected host learns of growth by itself, when it rescans, with its next connection, or only after the item was exported anew"},
		{quirkShrink, refuse, []string{accept, refuse},
			"set file-size to less than it is"},
		{quirkRemoveWhileConnected, allow, []string{allow, refuse},
			"/disk/remove of an item that a host is connected to"},
		{quirkRemoveUsedFile, allow, []string{allow, refuse},
			"/file/remove of a file that a disk item uses"},
		{quirkImageGone, "size-stays", []string{"size-stays", noSize},
			"an item whose file is gone still says how large it was, or no longer"},
		{quirkIdentifiers, "stable", []string{"stable", change},
			"serial and namespace UUID stay or change when an item is exported again, after a reboot too"},
		{quirkExportsAfterReboot, "kept", []string{"kept", lost},
			"after a reboot exports are as they were, or every nvme-tcp-export is no"},
		{quirkExitStatus, "zero", []string{"zero", nonzero},
			"the exit status of a script that failed; zero has been seen, nonzero is 1"},
		{quirkErrorLocation, yes, []string{yes, no},
			"run-time errors of commands end with their place: (/disk/add; line 1); both have been seen"},
		{quirkNewFileContent, "zero", []string{"zero", random},
			"a new backing file reads as zeros, or has old data in its first and last MiB"},
		{quirkChannelLimit, "0", []string{aNumber},
			"open channels per connection; 0 is no limit"},
		{quirkChannelOverLimit, refuse, []string{refuse, wait},
			"a channel over the limit is refused, or gets no answer until another one closes"},
		{quirkCommandLimit, "0", []string{aNumber},
			"bytes of an exec request that are read, the rest is cut off; 0 is no limit"},
		{quirkSpareIdleTimeout, "0s", []string{aDuration},
			"a session channel on which no command came for so long is closed; 0s is never"},
		{quirkRebootTime, "3s", []string{aDuration},
			"how long a reboot takes"},
		{quirkCommandTime, "0s", []string{aDuration},
			"how long every command takes at least; a real RDS needs 50ms to 100ms"},
		{quirkMaxSessions, "20", []string{aNumber},
			"SSH connections at a time; one more is closed before the banner"},
		{quirkHealth, "rows", []string{"rows", asSettings, none, missing},
			"/system/health has a row per sensor, a property per sensor, nothing at all, or does not exist"},
		{quirkMonitorPolicy, "test", []string{"test", "read"},
			"the policy that /disk/monitor-traffic needs"},
		{quirkMonitorFiles, "counters", []string{"counters", none, failing},
			"/disk/monitor-traffic of a type=file item shows counters, shows none, or fails"},
		{quirkMonitorValues, "numbers", []string{"numbers", asText},
			"monitor-traffic as-value yields plain numbers (rates in bits), or the texts of the screen: 12.8Mbps"},
		{quirkMonitorOne, asMap, []string{asMap, "list"},
			"monitor-traffic as-value of one item yields its map, or a list of one map"},
		{quirkSubvolumeInDirectory, accept, []string{accept, failing},
			"a subvolume can be made inside a plain directory, or only inside another subvolume"},
		{quirkSubvolumeRemoval, atOnce, []string{atOnce, dead},
			"a removed subvolume has left the list, or stays in it as dead until the next boot"},
		{quirkCopyTime, "0s", []string{aDuration},
			"how long /file/copy takes"},
		{quirkCopySize, "grows", []string{"grows", atOnce},
			"the target of /file/copy grows, or is as large as the source from its beginning"},
		{quirkCopyReturns, "done", []string{"done", started},
			"/file/copy returns when the copy is done, or when it has begun"},
		{quirkCopyExisting, failing, []string{failing, overwrite},
			"/file/copy over an existing file fails, or overwrites it"},
		{quirkExecuteReturns, "id", []string{"id", asText},
			":execute returns the id of its job, or the text of it, which no where clause finds"},
	}
}

// PrintQuirks writes the table of quirks, for --help.
func PrintQuirks(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, q := range Quirks() {
		if _, err := fmt.Fprintf(t, "  %s\t%s\t(%s)\t%s\n",
			q.Name, strings.Join(q.Values, "|"), q.Default, q.Meaning); err != nil {
			return err
		}
	}
	return t.Flush()
}

// quirks are the switches as set. They may change while commands run.
type quirks struct {
	mu     sync.Mutex
	values map[string]string
}

func newQuirks(set map[string]string) (*quirks, error) {
	q := &quirks{values: map[string]string{}}
	for _, known := range Quirks() {
		q.values[known.Name] = known.Default
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if err := q.set(name, set[name]); err != nil {
			return nil, err
		}
	}
	return q, nil
}

func (q *quirks) set(name, value string) error {
	all := Quirks()
	i := slices.IndexFunc(all, func(k Quirk) bool { return k.Name == name })
	if i < 0 {
		names := make([]string, 0, len(all))
		for _, k := range all {
			names = append(names, k.Name)
		}
		return fmt.Errorf("unknown quirk %q: there are %s", name, strings.Join(names, ", "))
	}
	if !all[i].takes(value) {
		return fmt.Errorf("quirk %s cannot be %q: it takes %s", name, value, strings.Join(all[i].Values, " or "))
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.values[name] = value
	return nil
}

func (k Quirk) takes(value string) bool {
	switch k.Values[0] {
	case aNumber:
		n, err := strconv.Atoi(value)
		return err == nil && n >= 0
	case aDuration:
		t, err := time.ParseDuration(value)
		return err == nil && t >= 0
	}
	return slices.Contains(k.Values, value)
}

func (q *quirks) is(name, value string) bool { return q.get(name) == value }

func (q *quirks) get(name string) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.values[name]
}

// number and duration read values that set has checked.
func (q *quirks) number(name string) int {
	n, _ := strconv.Atoi(q.get(name))
	return n
}

func (q *quirks) duration(name string) time.Duration {
	t, _ := time.ParseDuration(q.get(name))
	return t
}
