package routeros

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func TestBuilder(t *testing.T) {
	tests := map[string]struct {
		build *Builder
		want  string
	}{
		"values": {
			NewScript("x").Add(`/disk add slot=? file-size=? mount-filesystem=? comment=?`, Text(`a"b`), Number(math.MinInt64), YesNo(false), Text("?")),
			`/disk add slot="a\"b" file-size=-9223372036854775808 mount-filesystem=no comment="?"`,
		},
		"statements": {NewScript("x").Add(`:local i 1`).Add(`:put $i`), `:local i 1; :put $i`},
		"lines and indentation become spaces": {
			NewScript("x").Add("\n\t:if (true) do={\r\n\t\t:put 1\n\t}"), `:if (true) do={ :put 1 }`,
		},
		"spaces in strings stay":      {NewScript("x").Add(`:put "a  b"`), `:put "a  b"`},
		"a question in a string":      {NewScript("x").Add(`:error "why? \"really?\""`), `:error "why? \"really?\""`},
		"words":                       {NewScript("x").Add(`? print ?`, Word("/disk/btrfs"), Word("nvme-tcp-server-nqn")), `/disk/btrfs print nvme-tcp-server-nqn`},
		"parts":                       {NewScript("x").Add(`/disk set $i?`, Part(` size=??`, Number(1), Part(``))), `/disk set $i size=1`},
		"part that is not there":      {NewScript("x").Add(`/disk set $i?`, Part(``)), `/disk set $i`},
		"bytes above ASCII as hex":    {NewScript("x").Add(`:put ?`, Text("ä")), `:put "\C3\A4"`},
		"a dollar and a backslash":    {NewScript("x").Add(`:put ?`, Text(`\$x`)), `:put "\\\$x"`},
		"yes":                         {NewScript("x").Add(`/disk set x=?`, YesNo(true)), `/disk set x=yes`},
		"a space before a line break": {NewScript("x").Add("a \n b"), `a b`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, err := tt.build.Build()
			if err != nil {
				t.Fatal(err)
			}
			if s.String() != tt.want || s.Name() != "x" {
				t.Errorf("script %s = %s, want %s", s.Name(), s, tt.want)
			}
		})
	}
}

func TestBuilderRefuses(t *testing.T) {
	tests := map[string]*Builder{
		"nothing":                      NewScript("x"),
		"a missing value":              NewScript("x").Add(`:put ?`),
		"a value too many":             NewScript("x").Add(`:put 1`, Number(1)),
		"an open string":               NewScript("x").Add(`:put "a`),
		"a line break in a string":     NewScript("x").Add("\":put\n\""),
		"a control character":          NewScript("x").Add(`:put ?`, Text("a\x1bb")),
		"an empty word":                NewScript("x").Add(`:put ?`, Word("")),
		"a word with a space":          NewScript("x").Add(`:put ?`, Word("a b")),
		"a word that begins as a flag": NewScript("x").Add(`:put ?`, Word("-a")),
		"a bad value in a part":        NewScript("x").Add(`:put ?`, Part(`?`, Word("A"))),
		"one bad statement of three":   NewScript("x").Add(`:put 1`).Add(`:put ?`, Text("\n")).Add(`:put 2`),
		"an over-long value":           NewScript("x").Add(`:put ?`, Text(strings.Repeat("x", maxText+1))),
	}
	for name, b := range tests {
		t.Run(name, func(t *testing.T) {
			if s, err := b.Build(); !errors.Is(err, ErrInvalid) {
				t.Errorf("built %q, err = %v", s, err)
			}
		})
	}
}

func TestBuilderReportsEveryFault(t *testing.T) {
	_, err := NewScript("disk_add").Add(`:put ?`, Text("first\n")).Add(`:put ?`, Word("second!")).Build()
	if err == nil || !strings.Contains(err.Error(), "first") || !strings.Contains(err.Error(), "second!") || !strings.Contains(err.Error(), "disk_add") {
		t.Errorf("err = %v", err)
	}
}
