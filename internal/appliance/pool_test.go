package appliance

import (
	"strings"
	"testing"
)

// A pool on an array of arrays, as RDS are sold with: what failed is two levels down, and another pool's failure is not this one's.
func TestCapacityNamesFailedMembers(t *testing.T) {
	const (
		pool   = `{"slot":"raid10","type":"raid","fs":"xfs","size":7000,"free":6000,"mount-point":"storage-pool","state":"clean","raid-master":"none","parent":"PARENT"}`
		mirror = `{"slot":"raid1-a","type":"raid","state":"clean","raid-master":"MASTER","raid-member-failed":"no"}`
		drive  = `{"slot":"nvme3","type":"hardware","raid-master":"raid1-a","raid-member-failed":true}`
		whole  = `{"slot":"raid1-b","type":"raid","raid-master":"raid10","raid-member-failed":"yes"}`
		other  = `{"slot":"nvme9","type":"hardware","raid-master":"raid5","raid-member-failed":true},{"slot":"raid5","type":"raid","raid-master":"none"}`
		loose  = `{"slot":"nvme10","type":"hardware","raid-member-failed":true}`
		circle = `{"slot":"x","raid-master":"y","raid-member-failed":true},{"slot":"y","raid-master":"x"}`
	)
	for name, c := range map[string]struct {
		rows []string
		want string
	}{
		"nothing failed":          {[]string{pool, strings.Replace(mirror, "MASTER", "raid10", 1)}, ""},
		"a drive of a mirror":     {[]string{drive, strings.Replace(mirror, "MASTER", "raid10", 1), pool}, "nvme3"},
		"a mirror as well":        {[]string{whole, pool, drive, strings.Replace(mirror, "MASTER", "raid10", 1)}, "nvme3, raid1-b"},
		"a drive of another pool": {[]string{other, pool, loose, circle}, ""},
		"below a partition":       {[]string{drive, strings.Replace(mirror, "MASTER", "big", 1), strings.Replace(pool, "PARENT", "big", 1)}, "nvme3"},
	} {
		r, _ := newRDS(t, []string{"[" + strings.Join(c.rows, ",") + "]"})
		p, err := r.Capacity(t.Context(), Path{})
		if err != nil || p.Failed != c.want || p.Slot != "raid10" {
			t.Errorf("%s: %+v, %v; want %q", name, p, err, c.want)
		}
	}
}
