package appliance

import (
	"fmt"

	"github.com/rds-csi/rds-csi/internal/routeros"
)

// A row of a print, as `:serialize to=json` writes it, is read into a struct that names what is wanted of it. Only that is decoded, and
// a property is judged when it is asked for: a row that is not ours may hold anything, and must not spoil the list. (encoding/json takes
// SLOT for slot, too; RouterOS writes all keys in lower case [R].)

// diskRow is an item of /disk.
type diskRow struct {
	Slot            property `json:"slot"`
	Type            property `json:"type"`
	Comment         property `json:"comment"`
	Size            property `json:"size"`
	FileSize        property `json:"file-size"`
	FilePath        property `json:"file-path"`
	MountFilesystem property `json:"mount-filesystem"`
	Mounted         property `json:"mounted"`
	MountPoint      property `json:"mount-point"`
	Empty           property `json:"empty"`
	Export          property `json:"nvme-tcp-export"`
	Port            property `json:"nvme-tcp-server-port"`
	NQN             property `json:"nvme-tcp-server-nqn"`
}

// fileRow is a row of /file.
type fileRow struct {
	Name         property `json:"name"`
	Size         property `json:"size"`
	Contents     property `json:"contents"`
	LastModified property `json:"last-modified"`
}

// subvolumeRow is a row of /disk/btrfs/subvolume.
type subvolumeRow struct {
	Name         property `json:"name"`
	ReadOnly     property `json:"read-only"`
	Dead         property `json:"dead"`
	CreationTime property `json:"creation-time"`
}

// rows reads the rows in line i of a reply. Only a parsed, empty array means that there are none (B15).
func rows[T any](reply routeros.Reply, i int) ([]T, error) {
	var all []T
	if err := reply.JSON(i, &all); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	if all == nil {
		return nil, fmt.Errorf("%w: nothing where a list was to be", ErrAnswer)
	}
	return all, nil
}

// property is one of a row, with the readings that are ours.
type property struct{ routeros.Property }

// truth is yes or no, and what to assume where it is absent or unreadable.
func (p property) truth(otherwise bool) bool {
	if yes, ok := p.Bool(); ok {
		return yes
	}
	return otherwise
}

// path is a place on the RDS; what our grammar does not admit reads as zero, which is nowhere.
func (p property) path() Path {
	path, err := ParsePath(p.Text())
	if err != nil {
		return Path{}
	}
	return path
}

// size is what the item offers to a host: "size" is the device's, "file-size" the image's; they are equal for a plain
// file [R].
func (d *diskRow) size() (int64, bool) {
	for _, p := range []property{d.Size, d.FileSize} {
		if n, ok := p.Int(); ok && n > 0 {
			return n, true
		}
	}
	return 0, false
}

// record is a row of which the properties are picked by their names: for short answers.
type record map[string]property

func records(reply routeros.Reply, i int) ([]record, error) { return rows[record](reply, i) }

// text is a property as text; absent reads as empty.
func (r record) text(key string) string { return r[key].Text() }

// truth is a property as yes or no, and what to assume where it is absent or unreadable.
func (r record) truth(key string, otherwise bool) bool { return r[key].truth(otherwise) }

// number is a property as a whole number.
func (r record) number(key string) (int64, bool) { return r[key].Int() }
