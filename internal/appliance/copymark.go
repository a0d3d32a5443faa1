package appliance

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rds-csi/rds-csi/internal/routeros"
)

// A full copy takes longer than a command may, so the RDS makes it in the background, and everything that is known about it lies on
// the RDS, beside the copy: a restart of the driver in the middle of one changes nothing. The target is called T, the slot or the
// id that the copy is for; the source S.
//
//	<directory>/T.S.copying    the claim: somebody began it
//	<directory>/T.S.job        which job on the RDS does it; it stays, for a list that saw the claim and missed this would read as lost
//	<directory>/T.S.done       the job's own word that its copy command ended well
//	<directory>/T.S.failed     the job's own word that it did not, and why
//	<directory>/T.S.lost       what a claim becomes when the source is handed out again: whatever the job does, it proves nothing
//	<directory>/T.S.img        the copy, of a snapshot
//	<directory>/T.img          the copy, of a volume: no disk item names it before it is proven
//
// A snapshot on Btrfs needs none of this: the subvolume <directory>/T.S is there at once or not at all. A clone there is, too, but is no
// disk item yet: until it is, <directory>/T.S.cloning says how large it is.
const (
	copying = "copying"
	jobMark = "job"
	done    = "done"
	failure = "failed"
	givenUp = "lost"
	image   = "img"
)

// mark is what one of the small files says.
type mark struct {
	size    int64 // that the copy must reach at least
	created time.Time
	nonce   string // of one attempt: a job whose attempt was given up proves nothing
	name    string // the CSI name
	text    string // why it failed
}

// String is the mark without what the device adds to it. A name that is too long for it is left out: it is for people.
func (m mark) String() string {
	s := "rds-csi/1 size=" + strconv.FormatInt(m.size, 10) + " created=" + strconv.FormatInt(m.created.Unix(), 10) + " nonce=" + m.nonce
	if name := " name=" + encode(m.name); m.name != "" && len(name) <= 200 {
		s += name
	}
	return s
}

// errorKey is before the text of an error, which goes to the end of the mark.
const errorKey = " error="

// parseMark reads the contents of a mark. What it cannot read stays zero, which proves nothing.
func parseMark(contents string) (m mark) {
	contents, m.text, _ = strings.Cut(strings.TrimSpace(contents), errorKey)
	for word := range strings.FieldsSeq(contents) {
		key, value, _ := strings.Cut(word, "=")
		switch n, err := strconv.ParseInt(value, 10, 64); {
		case key == "size" && err == nil:
			m.size = n
		case key == "created" && err == nil:
			m.created = time.Unix(n, 0).UTC()
		case key == "nonce":
			m.nonce = value
		case key == "name":
			m.name = decode(value)
		}
	}
	return m
}

// marksOf is the regular expression of all marks of a target in dir, whatever the source.
func marksOf(dir Path, target string) string {
	return "^" + literal(dir.File()+"/"+target) + "[.][a-z0-9-]+[.](copying|job|done|failed|lost|cloning)$"
}

// literal is a path as a regular expression. Of the characters that a path may have only the dot means something in one.
func literal(path string) string { return strings.ReplaceAll(path, ".", "[.]") }

// sighting is all that was seen of one target made from one source.
type sighting struct {
	dir            Path
	target, source string
	image          Path
	size           int64 // of the image
	subvolume      bool  // the image lies in a read-only subvolume
	spoilt         bool  // the image lies in what is called like a snapshot, and is none: not read-only, or a plain directory
	created        time.Time
	marks          map[string]mark
	job            string    // id and start of the job, as the RDS writes them
	alive          bool      // that job runs
	claimed        time.Time // by the clock of the RDS
	likely         bool      // its mark is lost, and a job runs that may be it
}

func (s sighting) id() string { return s.dir.File() + "/" + s.target + "." + s.source }

// mark is what is known of the copy, from the mark that knows most.
func (s sighting) mark() mark {
	for _, kind := range []string{done, failure, copying, givenUp} {
		if m, ok := s.marks[kind]; ok {
			return m
		}
	}
	return mark{}
}

func (s sighting) has(kind string) bool {
	_, ok := s.marks[kind]
	return ok
}

// phase is how far a copy or a subvolume has come.
type phase int

const (
	lost   phase = iota // what there is proves nothing, and nobody works on it: a power loss, or the file of a stranger
	broken              // the job says that it failed
	moving              // the job works on it
	proven
)

func (s sighting) phase() phase {
	known := s.mark()
	switch {
	case s.subvolume:
		return proven
	case s.has(done) && known.size > 0 && s.size >= known.size:
		return proven
	case s.has(done) && !s.alive:
		return lost // a power loss soon after: the job looks at the size before it says that it is done
	case s.has(done):
		return moving
	case s.has(failure):
		return broken
	case s.alive, s.likely:
		return moving
	default:
		return lost
	}
}

// progress of a copy, as its size tells. A target that is large from its beginning tells nothing.
func (s sighting) progress() float64 {
	want := s.mark().size
	switch {
	case s.phase() == proven:
		return 1
	case want <= 0 || s.size >= want:
		return 0
	default:
		return float64(s.size) / float64(want)
	}
}

// unmarked says that an image or the mark of a job was seen and nothing that says what it is. A list of files is not of one
// instant: it may miss the mark that a job puts down in place of another one, and the image if that came as late, or have seen the
// image before it was whole. What looks so is looked at again.
func (s sighting) unmarked() bool {
	return !s.subvolume && !s.spoilt && (len(s.marks) == 0 && (!s.image.IsZero() || s.job != "") || s.has(done) && s.phase() != proven)
}

// look adds to a script what sightings are read from: the jobs that run, files and subvolumes by regular expressions of their
// names, and the clock. Jobs come first: a job that has ended by then has put down its mark before, so the files tell.
func look(b *routeros.Builder, files, subvolumes string) *routeros.Builder {
	return b.
		Add(`:local j ?; :foreach i in=[/system/script/job print detail as-value] do={:set j ($j . ($i->".id") . " " . ($i->"started") . ";")}; :put $j`, routeros.Text(jobsWord)).
		Add(`:put [:serialize to=json options=json.no-string-conversion [/file print detail as-value where name~?]]`, routeros.Text(files)).
		Add(`:put [:serialize to=json options=json.no-string-conversion [/disk/btrfs/subvolume print detail as-value where name~?]]`, routeros.Text(subvolumes)).
		Add(`:put ("" . [/system/clock get gmt-offset] . " " . [/system/clock get date] . " " . [/system/clock get time])`)
}

const jobsWord = "jobs;"

// sightings reads what look printed, from line i of the reply on, and keeps the targets that are wanted. Sorted.
func sightings(reply routeros.Reply, i int, wanted func(target string) bool) ([]sighting, error) {
	if i >= len(reply.Lines) || !strings.HasPrefix(reply.Lines[i], jobsWord) {
		return nil, fmt.Errorf("%w: the rds does not say which jobs it runs", ErrAnswer)
	}
	jobs := strings.Split(strings.TrimPrefix(reply.Lines[i], jobsWord), ";")
	files, err := rows[fileRow](reply, i+1)
	if err != nil {
		return nil, err
	}
	subvolumes, err := rows[subvolumeRow](reply, i+2)
	if err != nil {
		return nil, err
	}
	seen := map[string]*sighting{}
	for _, row := range files {
		collect(seen, row, wanted)
	}
	zone, now := time.Duration(0), time.Time{}
	if i+3 < len(reply.Lines) {
		at, clock, _ := strings.Cut(reply.Lines[i+3], " ")
		zone, now = offset(at), deviceTime(clock, 0)
	}
	list := make([]sighting, 0, len(seen))
	for _, s := range seen {
		s.alive = s.has(copying) && s.job != "" && slices.Contains(jobs, s.job)
		s.likely = s.has(copying) && slices.ContainsFunc(jobs, func(job string) bool { return s.mayBe(job, now) })
		if s.subvolume && !s.proveSubvolume(subvolumes, zone) {
			s.subvolume, s.spoilt = false, true
		}
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b sighting) int { return cmp.Compare(a.target+a.id(), b.target+b.id()) })
	return list, nil
}

// mayBe says whether a job may be the one that the mark of which is lost. The same script makes the claim and then begins the job, so
// both bear about the same time of the same clock. A time that cannot be read is no proof that it is another job, for a day: a login at the
// console is a job, too, and would be taken for the copy for as long as it lasts. A copy is not begun a second time while such a job
// runs; more is not concluded of it, and it is not stopped.
//
// A mark with an id but no start speaks of the job of that id, and of no other one. Ids begin anew with a boot [I], so the times must
// fit there, too.
func (s sighting) mayBe(job string, now time.Time) bool {
	id, started, _ := strings.Cut(job, " ")
	marked, exact, _ := strings.Cut(s.job, " ")
	if job == "" || strings.HasPrefix(marked, "*") && (exact != "" || id != marked) {
		return false
	}
	at := deviceTime(started, 0)
	if at.IsZero() || s.claimed.IsZero() {
		return s.age(now).Abs() < longest
	}
	after := at.Sub(s.claimed)
	return after >= -2*time.Second && after <= 10*time.Second
}

// longest is how long a copy may take of which nobody can say which job makes it.
const longest = 24 * time.Hour

// age of the claim by the clock of the RDS, which wrote it, or by ours if the RDS says too little.
func (s sighting) age(now time.Time) time.Duration {
	if now.IsZero() || s.claimed.IsZero() {
		return time.Since(s.marks[copying].created)
	}
	return now.Sub(s.claimed)
}

// whose says what to do when it is not known which job makes the copy.
func (s sighting) whose() string {
	if s.alive || !s.likely {
		return ""
	}
	return "; which of its jobs does it is not known: if none in /system/script/job/print copies it, remove /" + s.id() + ".copying and the unfinished image by hand"
}

// collect adds one file to the sighting that it belongs to.
func collect(seen map[string]*sighting, row fileRow, wanted func(string) bool) {
	path := row.Name.path()
	name, inside := path.Base(), false
	if name == imageName && !path.Dir().IsZero() {
		path, inside = path.Dir(), true
		name = path.Base() + "." + image
	}
	parts := strings.Split(name, ".")
	if len(parts) == 2 { // the image of a volume: its source is not in its name
		parts = []string{parts[0], "", parts[1]}
	}
	if len(parts) != 3 || !wanted(parts[0]) {
		return
	}
	s := sighting{dir: path.Dir(), target: parts[0], source: parts[1], marks: map[string]mark{}}
	if known, ok := seen[s.id()]; ok {
		s = *known
	}
	switch size, _ := row.Size.Int(); parts[2] {
	case copying, done, failure, givenUp:
		s.marks[parts[2]] = parseMark(row.Contents.Text())
		if parts[2] == copying {
			s.claimed = deviceTime(row.LastModified.Text(), 0)
		}
	case jobMark:
		s.job = strings.TrimSpace(row.Contents.Text())
	case image:
		s.image, s.size, s.subvolume = row.Name.path(), size, inside
	default:
		return
	}
	seen[s.id()] = &s
}

// proveSubvolume says whether a directory is a read-only subvolume, and reads when it was made. A directory that looks alike is
// somebody's own, and one that can be written to holds nobody knows what.
func (s *sighting) proveSubvolume(subvolumes []subvolumeRow, zone time.Duration) bool {
	for _, row := range subvolumes {
		if row.Name.Text() == s.target+"."+s.source && row.ReadOnly.truth(false) && !row.Dead.truth(false) {
			s.created = deviceTime(row.CreationTime.Text(), zone)
			return true
		}
	}
	return false
}

// deviceTime reads a date of the device [R], which is in its own time zone; zero if it is written in another way.
func deviceTime(s string, zone time.Duration) time.Time {
	t, err := time.Parse("2006-01-02 15:04:05", s)
	if err != nil {
		return time.Time{}
	}
	return t.Add(-zone).UTC()
}

// offset reads a gmt-offset: +02:00, or 02:00:00 as times are written elsewhere. What cannot be read counts as none.
func offset(s string) time.Duration {
	digits := strings.TrimPrefix(strings.TrimPrefix(s, "-"), "+")
	parts := strings.SplitN(digits+":0", ":", 3)
	hours, err1 := strconv.Atoi(parts[0])
	minutes, err2 := strconv.Atoi(parts[1])
	if err1 != nil || err2 != nil || hours > 14 {
		return 0
	}
	d := time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute
	if strings.HasPrefix(s, "-") {
		return -d
	}
	return d
}
