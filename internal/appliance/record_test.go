package appliance

import (
	"errors"
	"strings"
	"testing"

	"github.com/rds-csi/rds-csi/internal/routeros"
)

// What other rows hold spoils no row, and what is no list of rows is no answer: above all it is not "none".
func TestRows(t *testing.T) {
	for text, want := range map[string]string{
		`[]`:                           "",
		`[{"slot":"a","x":{"y":[1]}}]`: "a",
		`[{"slot":["x"],"size":{"a":1},"file-path":7},{"slot":"b","slot":"c"}]`: ",c",
		`[null,{"slot":7}]`:   ",7",
		`[{"slot":"ä\n"},{}]`: "ä\n,",
		`null`:                "unusable", `{}`: "unusable", `{"slot":"a"}`: "unusable", `["a"]`: "unusable", `[[]]`: "unusable", `5`: "unusable", ``: "unusable",
		`[{"slot":"a"}`: "unusable", `[{"slot":"a"},`: "unusable", `[{"slot":"a"}] x`: "unusable", `[{"slot":"a}]`: "unusable",
	} {
		items, err := rows[diskRow](routeros.Reply{Lines: []string{text}}, 0)
		slots := make([]string, 0, len(items))
		for _, item := range items {
			slots = append(slots, item.Slot.Text())
		}
		got := strings.Join(slots, ",")
		if errors.Is(err, ErrAnswer) && items == nil {
			got = "unusable"
		}
		if got != want {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
	if _, err := rows[fileRow](routeros.Reply{}, 0); !errors.Is(err, ErrAnswer) {
		t.Errorf("no line: %v", err)
	}
}

// What is absent or unreadable is what is safe.
func TestProperties(t *testing.T) {
	items, err := rows[diskRow](routeros.Reply{Lines: []string{`[{"size":"0","file-size":4096,"mounted":"perhaps","file-path":"a b","mount-filesystem":"no"},{"size":"x","file-size":-1,"file-path":"p/x.img"}]`}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	one, two := &items[0], &items[1]
	if size, ok := one.size(); !ok || size != 4096 {
		t.Errorf("size %d, %t", size, ok)
	}
	if size, ok := two.size(); ok || size != 0 {
		t.Errorf("size %d, %t", size, ok)
	}
	if !one.Mounted.truth(true) || one.Mounted.truth(false) || !two.Mounted.truth(true) || one.MountFilesystem.truth(true) {
		t.Error("a truth that nobody told")
	}
	if !one.FilePath.path().IsZero() || two.FilePath.path().Disk() != "/p/x.img" {
		t.Errorf("%s, %s", one.FilePath.path(), two.FilePath.path())
	}
}

// Of a key that is there twice the first one counts, whatever stands around it.
func TestTagOfAnEditedComment(t *testing.T) {
	for comment, want := range map[string]tag{
		"rds-csi/1 cluster=a name=b from=c claim=d/e":          {cluster: "a", name: "b", from: "c", claim: "d/e"},
		"rds-csi/1 cluster=a  name=b name=x cluster=y ":        {cluster: "a", name: "b"},
		"rds-csi/1  x=y z cluster=%41%ZZ name= unfinished=yes": {cluster: "%41%ZZ", unfinished: true},
		"rds-csi/1 ":         {},
		"rds-csi/1  ":        {},
		"rds-csi/2 name=b":   {},
		"x rds-csi/1 name=b": {},
	} {
		if got := parseTag(comment); got != want {
			t.Errorf("%q: %+v, want %+v", comment, got, want)
		}
	}
}
