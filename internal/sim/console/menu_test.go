package console_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rds-csi/rds-csi/internal/sim/console"
)

func TestPrint(t *testing.T) {
	check(t, []scriptCase{
		{"plain", `/disk print proplist=slot`, "0 form=0 flags=[] slot=x\n1 form=0 flags=[] slot=raid10\n"},
		{"slashes", `/disk/print detail proplist=slot where slot="x"`, "0 form=1 flags=[] slot=x\n"},
		{"terse, flags", `/disk print terse without-paging stats proplist=slot,type where slot=x`,
			"0 form=2 flags=[without-paging stats] slot=x type=file\n"},
		{"count", `/disk print count-only where type=file`, "1\n"},
		{"count is printed and returned", `:put ("n=" . [/disk print count-only])`, "2\nn=2\n"},
		{"as-value alone says nothing", `/disk print as-value`, ""},
		{"as-value", `:put [/disk print as-value proplist=slot,size]`, ".id=*1E;size=1099511627776;slot=x;.id=*1F;size=16003143565312;slot=raid10\n"},
		{"as-value is neither quoted nor escaped", `:put [/disk print detail as-value where slot="x"]`,
			".id=*1E;comment=a;b;file-path=/raid10/x.img;nvme-tcp-export=true;size=1099511627776;slot=x;type=file\n"},
		{"as-value of nothing", `:put [/disk print as-value where slot="absent"]`, "\n"},
		{"as-value without detail has the columns", `:put [/file print as-value]`, ".id=*2;name=raid10/x.img;type=.img file\n"},
		{"as-value with detail has all", `:put [/file print detail as-value]`, ".id=*2;name=raid10/x.img;size=5;type=.img file\n"},
		{"element", `:local r [/disk print detail as-value where slot="x"]; :put ($r->0->"nvme-tcp-export"); ` +
			`:put [:typeof ($r->0->"size")]; :put ([/disk print as-value]->1->"slot")`, "true\nnum\nraid10\n"},
		{"singleton", `:put [/system/resource/print as-value]`, "cpu-count=16;version=7.24.4 (stable)\n"},
		{"singleton by spaces", `/system resource print`, "0 form=0 flags=[] cpu-count=16 version=7.24.4 (stable)\n"},
		{"table inside brackets is shown", `:put [/disk print proplist=slot where slot=x]`, "0 form=0 flags=[] slot=x\n\n"},
	})
}

func TestPrintToFile(t *testing.T) {
	b := newBox()
	if got, _ := run(t, b, `/disk print file=out proplist=slot where slot=x`); got != "" {
		t.Errorf("printed %q", got)
	}
	if want := "0 form=0 flags=[] slot=x\r\n"; b.stored["out"] != want {
		t.Errorf("stored %q, want %q", b.stored["out"], want)
	}
}

func TestSerialize(t *testing.T) {
	check(t, []scriptCase{
		{"rows", `:put [:serialize to=json options=json.no-string-conversion [/disk print detail as-value where slot="x"]]`,
			`[{".id":"*1E","comment":"a;b","file-path":"/raid10/x.img","nvme-tcp-export":true,"size":1099511627776,"slot":"x","type":"file"}]` + "\n"},
		{"no rows", `:put [:serialize to=json [/disk print as-value where slot="absent"]]`, "[]\n"},
		{"empty array", `:put [:serialize to=json [:toarray ""]]`, "[]\n"},
		{"without as-value", `:put [:serialize to=json [/disk print where slot="absent"]]`, "\n"},
		{"singleton", `:put [:serialize to=json [/system/resource print as-value]]`, `{"cpu-count":16,"version":"7.24.4 (stable)"}` + "\n"},
		{"strings become numbers", `:put [:serialize to=json {"123";"1.5";"-1";"1.";"12a";"";"*1"}]`,
			`[123.000000,1.500000,-1.000000,"1.","12a","","*1"]` + "\n"},
		{"escapes", `:put [:serialize to=json "a\"b\\c\n\t\01\7F\C3\A4\FF/"]`, `"a\"b\\c\n\t\u0001\u007fä\u00ff/"` + "\n"},
		{"nil in an array", `:local x; :put [:serialize to=json {$x;true}]`, "[null,true]\n"},
		{"pretty", `:put [:len [:serialize to=json options=json.pretty,json.no-string-conversion {a="1"}]]`, "16\n"},
		{"find", `:put [:serialize to=json [/disk find]]`, `["*1E","*1F"]` + "\n"},
	})
}

func TestWhere(t *testing.T) {
	for where, want := range map[string]string{
		`slot="x"`:             "x",
		`slot=x`:               "x",
		`slot="nobody"`:        "",
		`type!="file"`:         "raid10",
		`size>1099511627776`:   "raid10",
		`size>=1099511627776`:  "x;raid10",
		`size<2000000000000`:   "x",
		`size<=1`:              "",
		`slot~"^raid"`:         "raid10",
		`slot~"("`:             "",
		`nvme-tcp-export`:      "x",
		`!nvme-tcp-export`:     "raid10",
		`nvme-tcp-export=yes`:  "x",
		`nvme-tcp-export=true`: "x",
		`slot="x" type="file"`: "x",
		`slot="x" type="raid"`: "",
		`slot="x" and type="file" || slot="raid10"`: "x;raid10",
		`(slot="x" or slot="raid10") && size>0`:     "x;raid10",
		`.id=*1F`:                                   "raid10",
		`slot=("rai" . "d10")`:                      "raid10",
		`slot=[:pick "xy" 0 1]`:                     "x",
		`(slot~"^raid")=false`:                      "x",
		`comment`:                                   "x",
		`!comment`:                                  "raid10",
		`comment="a;b"`:                             "x",
		`comment=""`:                                "", // absent is not ""
		`comment!="z"`:                              "x;raid10",
		`!(comment="a;b")`:                          "raid10",
		`nosuch="x"`:                                "",
		`nosuch`:                                    "",
		`slot = "x"`:                                "x",
		`type=slot`:                                 "", // a property, not the word
		`size="1099511627776"`:                      "", // types differ: no rows and no word about it
		`size!="1099511627776"`:                     "",
		`!(size="1099511627776")`:                   "",
		`nvme-tcp-export="yes"`:                     "",
		`nvme-tcp-export="true"`:                    "",
		`.id="*1F"`:                                 "",
		`slot=5`:                                    "",
		`slot<5`:                                    "",
		`size~"1"`:                                  "",
		`size="1" || slot="x"`:                      "x",
		`slot="x" || (size>"abc")`:                  "x",
	} {
		got, failed := run(t, newBox(), `:foreach i in=[/disk find where `+where+`] do={:put [/disk get $i slot]}`)
		wanted := ""
		if want != "" {
			wanted = strings.ReplaceAll(want, ";", "\n") + "\n"
		}
		if got != wanted || failed {
			t.Errorf("where %s: got %q (failed %v), want %q", where, got, failed, wanted)
		}
	}
}

// A variable that is called like a property means the property [V]: the script of the manual that "will not work".
func TestVariableNamedLikeAPropertyMeansTheProperty(t *testing.T) {
	check(t, []scriptCase{
		{"property wins", `:local slot "x"; :put [/disk find where slot=$slot]`, "*1E;*1F\n"},
		{"inside a string too", `:local slot "x"; :put [/disk find where slot="$slot"]`, "*1E;*1F\n"},
		{"other name", `:local mine "x"; :put [/disk find where slot=$mine]`, "*1E\n"},
	})
}

func TestWhereSyntax(t *testing.T) {
	checkFails(t, console.Dialect{}, []scriptCase{
		{"empty", `/disk print where`, "syntax error (line 1 column 18)\n"},
		{"glued terms", `/disk print where slot="x"type="y"`, "syntax error (line 1 column 27)\n"},
		{"regular expression without where", `:put [/disk find slot~"x"]`, "syntax error (line 1 column 18)\n"},
		{"path without quotes", `/disk print where file-path=/raid10/x.img`, "syntax error (line 1 column 29)\n"},
		{"undeclared variable", `/disk print where slot=$x`, "syntax error (line 1 column 25)\n"},
		{"find on a singleton", `:put [/system/resource find]`, "bad command name find (line 1 column 24)\n"},
	})
}

func TestEditing(t *testing.T) {
	check(t, []scriptCase{
		{"add is silent", `/disk add type=file slot=new`, ""},
		{"add yields the id", `:put [/disk/add type=file slot=new file-size=1000]; :put [/disk get new file-size]`, "*20\n1000\n"},
		{"set by name", `/disk set x comment="new one"; :put [/disk get x comment]`, "new one\n"},
		{"set by id", `/disk/set *1E comment=c; :put [/disk get *1E comment]`, "c\n"},
		{"set by numbers", `/disk set comment=c numbers=x,raid10; :put [/disk print count-only where comment=c]`, "2\n2\n"},
		{"set by find", `/disk set [find slot="x"] comment=c; :put [/disk get [find slot="x"] comment]`, "c\n"},
		{"set by variable", `:local i [/disk find where slot="x"]; /disk set $i comment=c; :put [/disk get $i comment]`, "c\n"},
		{"nothing found, nothing said", `/disk set [find slot="no"] comment=c; /disk remove [find slot="no"]; :put [:len [/disk find]]`, "2\n"},
		{"remove", `/disk remove [find slot="x"]; :put [/disk find]`, "*1F\n"},
		{"remove in a loop", `:foreach i in=[/disk find] do={/disk remove $i}; :put [:len [/disk find]]`, "0\n"},
		{"get all", `:put [/file get raid10/x.img]`, ".id=*2;name=raid10/x.img;size=5;type=.img file\n"},
		{"get named", `:put [/disk get value-name=slot numbers=x]`, "x\n"},
		{"get what is not set", `:put [:typeof [/disk get raid10 comment]]`, "nothing\n"},
		{"get of a singleton", `:put [/system/resource get version]`, "7.24.4 (stable)\n"},
		{"set of a singleton", `/disk settings set auto-smb-sharing=yes; :put [/disk settings get auto-smb-sharing]`, "true\n"},
		{"other verbs", `/disk monitor-traffic x once`, "slot: x\n"},
		{"other verbs by slash", `/disk/monitor-traffic [find slot="raid10"] once`, "slot: raid10\n"},
	})
	checkFails(t, console.Dialect{}, []scriptCase{
		{"no such name", `/disk set nosuch comment=a; :put no`, "no such item\n"},
		{"no such id", `/disk remove *99`, "no such item\n"},
		{"item numbers", `/disk remove 0`, "no such item\n"},
		{"item numbers from a variable", `:local n 0; /disk remove $n`, "no such item\n"},
		{"one of several", `/disk remove x,nosuch; :put no`, "no such item\n"},
		{"empty name", `/disk remove ""`, "no such item\n"},
		{"get of an empty find", `:put [/disk get [find slot="no"] slot]`, "no such item\n"},
		{"get of two", `:put [/disk get [find] slot]`, "invalid internal item number\n"},
		{"unknown value", `:put [/disk get x nosuch]`, "input does not match any value of value-name\n"},
		{"nobody answers the prompt", `/disk remove`, "numbers: \n"},
		{"already there", `:put a; /disk add slot=x; :put no`, "a\nfailure: already have such slot\n"},
	})
}

func TestCallSeesWhatWasWritten(t *testing.T) {
	b := newBox()
	run(t, b, `:local n 5; /disk add slot="q\"\\\$" file-size=1G type=yes comment=("a" . $n) file-path=$n mount-filesystem=(1 = 1)`)
	run(t, b, `/disk monitor-traffic x once`)
	want := []call{
		{"add", 0, []console.Arg{
			{Name: "slot", Value: `q"\$`}, {Name: "file-size", Value: "1G"}, {Name: "type", Value: "yes"},
			{Name: "comment", Value: "a5"}, {Name: "file-path", Value: int64(5)}, {Name: "mount-filesystem", Value: true},
		}},
		{"monitor-traffic", 1, []console.Arg{{Name: "once", Value: true}}},
	}
	if diff := cmp.Diff(want, b.menus["/disk"].calls, cmp.AllowUnexported(call{})); diff != "" {
		t.Error(diff)
	}
}

func TestUnknownNames(t *testing.T) {
	cases := []scriptCase{
		{"command", `/ttt`, "bad command name ttt (line 1 column 2)\n"},
		{"menu without print", `/system print`, "bad command name print (line 1 column 9)\n"},
		{"verb", `/disk frobnicate x`, "bad command name frobnicate (line 1 column 7)\n"},
		{"abbreviation", `/disk pr`, "bad command name pr (line 1 column 7)\n"},
		{"submenu", `/disk/nvme-tcp/print`, "bad command name nvme-tcp (line 1 column 7)\n"},
		{"in a block", `:put a; :if (false) do={/ttt}`, "bad command name ttt (line 1 column 26)\n"},
	}
	checkFails(t, console.Dialect{}, append(cases,
		scriptCase{"argument", `:put a; /disk add slot=x nosuch=y`, "expected end of command (line 1 column 26)\n"},
		scriptCase{"too many", `:put a; /disk remove x y`, "expected end of command (line 1 column 24)\n"},
		scriptCase{"not to be caught", `:onerror e in={/disk add nosuch=y} do={:put caught}`, "expected end of command (line 1 column 26)\n"},
	))
	checkFails(t, console.Dialect{RuntimeParameterErrors: true}, append(cases,
		scriptCase{"argument", `:put a; /disk add slot=x nosuch=y`, "a\nbad parameter nosuch (line 1 column 26)\n"},
		scriptCase{"flag", `:put a; /disk print nosuch`, "a\nbad parameter nosuch (line 1 column 21)\n"},
		scriptCase{"parse", `:put [:parse "/disk add nosuch=y"]`, "bad parameter nosuch (line 1 column 11)\n"},
	))
	b := newBox()
	b.dialect.RuntimeParameterErrors = true
	got, failed := run(t, b, `:onerror e in={/disk add nosuch=y} do={:put ("caught " . $e)}`)
	if want := "caught bad parameter nosuch (line 1 column 26)\n"; got != want || failed {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestErrorLocation(t *testing.T) {
	checkFails(t, console.Dialect{ErrorLocation: true}, []scriptCase{
		{"failure", `/disk add slot=x`, "failure: already have such slot (/disk/add; line 1)\n"},
		{"no such item", `:put [/disk get nosuch slot]`, "no such item (/disk/get; line 1)\n"},
		{"error's own text", `:error "mine"`, "mine\n"},
		{"nested, named once", `/disk set [get nosuch slot] comment=x`, "no such item (/disk/get; line 1)\n"},
	})
	b := newBox()
	b.policies = []string{"read"}
	checkAs(t, b, `/disk remove x`, "not enough permissions (9)\n")
	b.dialect.ErrorLocation = true
	checkAs(t, b, `/disk remove x`, "not enough permissions (9) (/disk/remove; line 1)\n")
}
