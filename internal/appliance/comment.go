package appliance

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// tag is what an item's comment says about it. The comment is what remains after everything else is lost, so it holds
// what cannot be derived: whose volume this is, and what Kubernetes calls it.
//
//	rds-csi/1 cluster=<id> name=<csi name> from=<slot or snapshot> claim=<namespace>/<name>
//
// Values are percent-encoded, so that a space or a quote in one can neither end it nor reach the console. Readers skip
// keys that they do not know: later versions add some.
type tag struct {
	cluster, name, from, claim string
	unfinished                 bool  // as after unfinishedMark; never written by String
	grownTo                    int64 // as after grownMark; never written by String
}

const (
	tagVersion = "rds-csi/1"
	// maxComment bounds what a claim may add: nothing is known about the longest comment or command line [U], and the
	// claim is only for people.
	maxComment = 480
)

// owned is the text that every comment of this cluster's volumes begins with; the scripts compare it on the device.
func owned(cluster string) string {
	return tagVersion + " cluster=" + encode(cluster) + " "
}

// String is the comment.
func (t tag) String() string {
	s := owned(t.cluster) + "name=" + encode(t.name)
	if t.from != "" {
		s += " from=" + encode(t.from)
	}
	if claim := " claim=" + encode(t.claim); t.claim != "" && len(s)+len(claim) <= maxComment {
		s += claim
	}
	return s
}

// parseTag reads a comment of whatever cluster; what is not one of ours reads as nothing.
func parseTag(comment string) tag {
	rest, found := strings.CutPrefix(comment, tagVersion+" ")
	if !found {
		return tag{}
	}
	var t tag
	for rest != "" { // from its end: of a key that is there twice the first one counts
		word := rest[strings.LastIndexByte(rest, ' ')+1:]
		rest = strings.TrimSuffix(rest[:len(rest)-len(word)], " ")
		switch key, value, _ := strings.Cut(word, "="); key {
		case "cluster":
			t.cluster = decode(value)
		case "name":
			t.name = decode(value)
		case "from":
			t.from = decode(value)
		case "claim":
			t.claim = decode(value)
		case "unfinished":
			t.unfinished = value != ""
		case "grown":
			if n, err := strconv.ParseInt(value, 10, 64); err == nil && n > 0 && grownMark(n) == " "+word {
				t.grownTo = n
			}
		}
	}
	return t
}

// source is what a volume was made from. A snapshot's id has a form that no slot has.
func (t tag) source() Source {
	if ValidSnapshotID(t.from) {
		return Source{Snapshot: t.from}
	}
	return Source{Volume: t.from}
}

// plain are the bytes that stand for themselves.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/"

func encode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(plain, s[i]) >= 0 {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
	}
	return b.String()
}

// decode leaves alone what encode cannot have written: somebody has edited the comment, and reading must go on.
func decode(s string) string {
	if text, err := url.PathUnescape(s); err == nil {
		return text
	}
	return s
}
