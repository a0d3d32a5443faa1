package appliance

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestTagString(t *testing.T) {
	// People read it on the RDS, and every later version must: it is fixed.
	got := tag{cluster: "homelab", name: "pvc-1", claim: "web/data 0"}.String()
	if want := "rds-csi/1 cluster=homelab name=pvc-1 claim=web/data%200"; got != want {
		t.Errorf("comment = %q, want %q", got, want)
	}
}

// Any CSI name comes back as it was, and no name or claim can make a volume look like another cluster's.
func TestTagRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := tag{
			cluster: rapid.StringN(1, -1, 63).Draw(t, "cluster"),
			name:    rapid.StringN(1, -1, maxCSIName).Draw(t, "name"),
			claim:   rapid.StringN(0, -1, 64).Draw(t, "claim"),
		}
		comment := want.String()
		got := parseTag(comment)
		if len(comment) > maxComment || got.claim == "" {
			got.claim = want.claim // dropped for length; it is for people only
		}
		if got != want {
			t.Fatalf("%+v became %q and %+v", want, comment, got)
		}
		if !strings.HasPrefix(comment, owned(want.cluster)) || strings.HasPrefix(comment, owned(want.cluster+"x")) || strings.HasPrefix(comment, owned(want.cluster[1:])) {
			t.Fatalf("%q: owner is unclear", comment)
		}
		if strings.Trim(comment, plain+"%= ") != "" {
			t.Fatalf("%q holds what a console may read as more than text", comment)
		}
	})
}

func TestLongClaimIsDroppedNotTheName(t *testing.T) {
	name := strings.Repeat("\"", maxCSIName)
	comment := tag{cluster: "c", name: name, claim: strings.Repeat("n", 63) + "/" + strings.Repeat("c", 253)}.String()
	if got := parseTag(comment); got.name != name || got.claim != "" {
		t.Errorf("%q became %+v", comment, got)
	}
}

func TestParseTagTolerates(t *testing.T) {
	for comment, want := range map[string]tag{
		"":                       {},
		"backup of the mail box": {},
		"rds-csi/2 cluster=a":    {},
		"rds-csi/1":              {},
		"rds-csi/1 cluster=a name=b source=c claim=d/e":  {cluster: "a", name: "b", claim: "d/e"},
		"rds-csi/1 cluster=a  name=b":                    {cluster: "a", name: "b"},
		"rds-csi/1 cluster=a name=%zz":                   {cluster: "a", name: "%zz"},
		"rds-csi/1 cluster=a name=b cluster=other":       {cluster: "a", name: "b"},
		"note: rds-csi/1 cluster=a name=b claim=d/e":     {},
		"rds-csi/1 cluster=a name=b grown=7":             {cluster: "a", name: "b", grownTo: 7},
		"rds-csi/1 cluster=a name=b grown=7 note":        {cluster: "a", name: "b", grownTo: 7},
		"rds-csi/1 cluster=a name=b grown=7 grown=8":     {cluster: "a", name: "b", grownTo: 7},
		"rds-csi/1 cluster=a name=b grown=yes":           {cluster: "a", name: "b"},
		"rds-csi/1 cluster=a name=b grown=0":             {cluster: "a", name: "b"},
		"rds-csi/1 cluster=a name=b grown=+7":            {cluster: "a", name: "b"},
		"rds-csi/1 cluster=a name=b grown=07":            {cluster: "a", name: "b"},
		"rds-csi/1 cluster=a name=b grown=%37":           {cluster: "a", name: "b"},
		"rds-csi/1 cluster=a name=b%20grown=7":           {cluster: "a", name: "b grown=7"},
		"rds-csi/1 cluster=a name=b%20cluster%3Dother x": {cluster: "a", name: "b cluster=other"},
	} {
		if got := parseTag(comment); got != want {
			t.Errorf("%q became %+v, want %+v", comment, got, want)
		}
	}
}

func FuzzParseTag(f *testing.F) {
	for _, seed := range []string{"rds-csi/1 cluster=a name=b claim=c/d", "", "rds-csi/1 %", "rds-csi/1 cluster=%2"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, comment string) {
		got := parseTag(comment)
		if got.cluster != "" && !strings.HasPrefix(comment, tagVersion+" ") {
			t.Fatalf("%q has an owner", comment)
		}
		if strings.HasPrefix(comment, owned("homelab")) && got.cluster != "homelab" {
			t.Fatalf("%q is owned on the device, but reads as %q", comment, got.cluster)
		}
	})
}
