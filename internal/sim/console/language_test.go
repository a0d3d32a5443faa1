package console_test

import (
	"testing"

	"github.com/rds-csi/rds-csi/internal/sim/console"
)

// The samples of the manual's page "Scripting" and its "Tips and tricks", as far as this subset goes.
func TestManualSamples(t *testing.T) {
	check(t, []scriptCase{
		{"if", `:if ( true ) do={ :put "lala" }`, "lala\n"},
		{"semicolon before bracket", `:put [ :len "my test string";]`, "14\n"},
		{"len", `:put [:len "length=8"]`, "8\n"},
		{"hash in string", `:local myStr "part of the string # is not a comment"; :put $myStr`,
			"part of the string # is not a comment\n"},
		{"scopes", `{ :local a 3; { :local b 4; :put ($a+$b); } }`, "7\n"},
		{"blank after equals", `:for i from= 1 to= 2 do={:put $i}`, "1\n2\n"},
		{"hex escapes", `:put "\48\45\4C\4C\4F\r\nThis\r\nis\r\na\r\ntest"`, "HELLO\nThis\nis\na\ntest\n"},
		{"arithmetic", `:put (3+4); :put (1-6); :put (4*5); :put (10 / 2); :put ((10)/2); :put (5 % 3)`, "7\n-5\n20\n5\n5\n2\n"},
		{"negation", `{:local a 1; :put (-$a);}`, "-1\n"},
		{"relations", `:put (3<4); :put (3>4); :put (2=2); :put (2!=2); :put (2<=2); :put (1>=2)`,
			"true\nfalse\ntrue\nfalse\ntrue\nfalse\n"},
		{"logic", `:put (!true); :put (true&&true); :put (true and false); :put (true||false)`, "false\ntrue\nfalse\ntrue\n"},
		{"concatenation", `:put ("concatenate" . " " . "string")`, "concatenate string\n"},
		{"array append", `:put ({1;2;3}, 5)`, "1;2;3;5\n"},
		{"variable in string", `:local myVar "world"; :put "Hello $myVar"`, "Hello world\n"},
		{"expression in string", `:local a 5; :local b 6; :put " 5x6 = $($a * $b)"`, " 5x6 = 30\n"},
		{"command in string", `:put " We have $[ :len [/disk find]] disks"`, " We have 2 disks\n"},
		{"value in brackets", `:put ( "value is " . (4+5))`, "value is 9\n"},
		{"element by key", `:local aaa {a=1;b=2}; :put ($aaa->"a"); :put ($aaa->"b")`, "1\n2\n"},
		{"quoted variable", `:local "my-Var"; :set "my-Var" "my value"; :put $"my-Var"`, "my value\n"},
		{"typeof", `:put [:typeof 4]; :put [:typeof [:toarray "1,2,3,4,5"]]; :local v; :put [:typeof $v]`, "num\narray\nnil\n"},
		{"find from -1", `:put [:find "abc" "a" -1]`, "0\n"},
		{"pick", `:put [:pick "abcde" 1 3]; :put [:pick {"a";"b"} 1]; :put [:pick "abc" 2]`, "bc\nb\nc\n"},
		{"nothing", `:if ([:nothing] = 0) do={:put true} else={:put false}; ` +
			`:if ([:nothing] < 0) do={:put true} else={:put false}; :if ([:nothing] > 0) do={:put true} else={:put false}`,
			"false\ntrue\nfalse\n"},
		{"tonum of text is nil", `:put [:typeof [:tonum "cow&chicken"]]; :put [:tonum "23"]; :put [:typeof [:tonum "23.8"]]`, "nil\n23\nnil\n"},
		{"foreach with keys", `:foreach k,v in={2; "aX"=1; y=2; 5} do={:put ("$k=$v")}`, "0=2\n1=5\naX=1\ny=2\n"},
		{"foreach", `:foreach v in={2; "aX"=1; y=2; 5} do={:put ("$v")}`, "2\n5\n1\n2\n"},
		{"onerror", `:onerror errorName in={ :error "failure" } do={ :put "Critical $errorName" }`, "Critical failure\n"},
		{"onerror by place", `:onerror e {:error "no"} do={:put "resolver failed"}; :put "lalala"`, "resolver failed\nlalala\n"},
		{"string to every element", `:local array {"cccc";"ddddd"}; :put ("array value is: " . $array )`,
			"array value is: cccc;array value is: ddddd\n"},
		{"tostr of array", `:local array {"cccc";"ddddd"}; :put ("array value is: " . [:tostr $array] )`,
			"array value is: cccc;ddddd\n"},
		{"two dimensions", `:local test {{"11";"12";"13"};{"21";"22";"23"}}; :put ($test->1->1)`, "22\n"},
		{"serialize", `:local var ({"string"="1234"; "number"=1234}); :put [:serialize to=json value=$var]`,
			`{"number":1234,"string":1234.000000}` + "\n"},
		{"serialize without conversion",
			`:local var {"string"="1234"; "number"=1234}; :put [:serialize to=json value=$var options=json.no-string-conversion]`,
			`{"number":1234,"string":"1234"}` + "\n"},
		{"serialize a list", `:put [:serialize value=a,b,c to=json]`, `["a","b","c"]` + "\n"},
	})
}

func TestManualErrors(t *testing.T) {
	checkFails(t, console.Dialect{}, []scriptCase{
		{"undeclared variable", `:put $myVar`, "syntax error (line 1 column 7)\n"},
		{"empty array", `:local arrayy {}`, "syntax error (line 1 column 17)\n"},
		{"assignment without declaration", `:set myVar "my value"`, "syntax error (line 1 column 6)\n"},
		{"case matters", `:local myVar "hello"; :put $myVAr`, "syntax error (line 1 column 29)\n"},
		{"out of scope", `{ :local a 3; { :local b 4 }; :put ($a+$b) }`, "syntax error (line 1 column 41)\n"},
		{"prefix, not division", `:put (10/2)`, "syntax error (line 1 column 7)\n"},
		{"keyword as name", `:local in 5`, "syntax error (line 1 column 8)\n"},
		{"blank before equals", `:for i from = 1 to = 2 do = {:put $i}`, "expected end of command (line 1 column 8)\n"},
		{"no colon", `put "x"`, "bad command name put (line 1 column 1)\n"},
		{"no global", `:global a 1`, "bad command name global (line 1 column 2)\n"},
		{"dash in name", `:local my-var 1`, "syntax error (line 1 column 10)\n"},
	})
}

func TestStatements(t *testing.T) {
	check(t, []scriptCase{
		{"nothing", ``, ""},
		{"comment", `# :put 1`, ""},
		{"empty statements", ` ;; :put 1 ;; `, "1\n"},
		{"else", `:if (1 = 2) do={:put a} else={:put b}`, "b\n"},
		{"if without else", `:if (1 = 2) do={:put a}`, ""},
		{"local without value, set later", `:local x; :if (true) do={:set x 5}; :put $x`, "5\n"},
		{"shadow", `:local x 1; { :local x 2; :put $x }; :put $x`, "2\n1\n"},
		{"set without value", `:local x 1; :set x; :put [:typeof $x]`, "nil\n"},
		{"for down", `:for i from=2 to=1 do={:put $i}`, "2\n1\n"},
		{"for step", `:for i from=0 to=4 step=2 do={:put $i}`, "0\n2\n4\n"},
		{"while", `:local i 0; :while ($i < 3) do={:set i ($i + 1)}; :put $i`, "3\n"},
		{"do while", `:local i 0; :do {:set i ($i + 1)} while=($i < 3); :put $i`, "3\n"},
		{"break, continue", `:foreach i in={1;2;3;4} do={:if ($i = 2) do={:continue}; :if ($i = 4) do={:break}; :put $i}`, "1\n3\n"},
		{"foreach over nothing", `:foreach i in=[:toarray ""] do={:put $i}; :put end`, "end\n"},
		{"foreach over one", `:foreach i in="abc" do={:put $i}`, "abc\n"},
		{"on-error", `:do {:error "x"; :put no} on-error={:put caught}; :put on`, "caught\non\n"},
		{"onerror yields true", `:put [:onerror e in={:error "x"} do={}]; :put [:onerror e in={} do={}]`, "true\nfalse\n"},
		{"onerror returns", `:put [:onerror e in={:return 5} do={}]; :put [:onerror e in={:error x} do={:return 6}]`, "5\n6\n"},
		{"return ends the script", `:put 1; :return 2; :put 3`, "1\n"},
		{"exit ends the script", `:put 1; :if (true) do={:exit}; :put 3`, "1\n"},
		{"log", `:log info "x"; :put 1`, "1\n"},
		{"delay", `:delay 1ms; :delay 0; :put 1`, "1\n"},
		{"parse", `:put [:parse "/disk/print"]`, "(evl /disk/print)\n"},
		{"path alone", `/disk; :put [:len [find]]; :put [get x type]`, "2\nfile\n"},
		{"relative in brackets", `/disk set [find slot="x"] comment=[get raid10 type]; :put [/disk get x comment]`, "raid\n"},
	})
}

func TestFunctions(t *testing.T) {
	check(t, []scriptCase{
		{"len", `:put [:len {1;2}]; :put [:len {a=1}]; :put [:len ""]; :put [:len [:nothing]]`, "2\n1\n0\n0\n"},
		{"pick out of range", `:put [:pick "abc" 1 9]; :put [:pick "abc" 5 9]; :put [:pick {1;2;3} 1 9]`, "bc\n\n2;3\n"},
		{"find", `:put [:find "a-b-c" "-"]; :put [:find "a-b-c" "-" 1]; :put [:typeof [:find "abc" "x"]]`, "1\n3\nnil\n"},
		{"find element", `:put [:find {"a";"b"} "b"]; :put [:typeof [:find {"1"} 1]]`, "1\nnil\n"},
		{"conversions", `:put [:tonum "12"]; :put [:tobool "yes"]; :put [:toid "*1F"]; :put [:typeof [:toid "*1F"]]`,
			"12\ntrue\n*1F\nid\n"},
		{"types", `:put [:typeof true]; :put [:typeof "5"]; :put [:typeof *1F]; :put [:typeof ({1}->4)]; :put [:typeof [:parse ":put 1"]]`,
			"bool\nstr\nid\nnothing\ncode\n"},
		{"words are typed", `:local a 5; :local b yes; :local c x; :put ([:typeof $a] . [:typeof $b] . [:typeof $c])`, "numboolstr\n"},
		{"no conversion", `:put ("1" = 1); :put ("1" != 1); :put (*1F = "*1F")`, "false\ntrue\nfalse\n"},
		{"regular expression", `:put ("pvc-12" ~ "^pvc-[0-9]+\$"); :put ("abc" ~ "^b")`, "true\nfalse\n"},
		{"precedence", `:put (1 + 2 * 3 = 7 && "a" . "b" = "ab" || false)`, "true\n"},
		{"escapes", `:put "\"\\\$\_\t\a\b\f\v"`, "\"\\$ \t\a\b\f\v\n"},
		{"nothing is less than everything", `:local x; :put ($x < "a"); :put ("a" < $x); :put ($x <= $x); :put (5 <= $x)`,
			"true\nfalse\ntrue\nfalse\n"},
		{"equal to nothing", `:local x; :put ($x = [:nothing]); :put ($x = ""); :put ($x != "")`, "true\nfalse\ntrue\n"},
		{"element keys", `:local k 1; :local a {1;{b="two"}}; :put ($a->$k->"b"); :put ($a->(2-1)->"b" . $a->0); :put ($a->9)`,
			"two\ntwo1\n\n"},
		{"array to array", `:put [:typeof [:toarray {1;2}]]; :put [:len [:toarray 5]]; :put [:len [:toarray "a,b"]]`, "array\n1\n2\n"},
		{"elements before a string", `:put ({"a";"b"} . "x")`, "ax;bx\n"},
		{"list with keys of its own", `:foreach k,v in={"x";"y"} do={:put "$k$v"}`, "0x\n1y\n"},
		{"put of map", `:put {b=1;a="x"}`, "a=x;b=1\n"},
	})
}

func TestRunTimeErrors(t *testing.T) {
	checkFails(t, console.Dialect{}, []scriptCase{
		{"error", `:put a; :error "my text"; :put b`, "a\nmy text\n"},
		{"error in handler", `:onerror e in={:error "1"} do={:error "2 $e"}; :put b`, "2 1\n"},
		{"condition", `:if ("x") do={:put 1}`, "conditional not boolean\n"},
		{"both sides are evaluated", `:local i [:toarray ""]; :if ([:len $i] > 0 && [/disk get $i type] = "x") do={}`, "no such item\n"},
		{"division by zero", `:put (1 / 0)`, "division by zero\n"},
		{"arithmetic on text", `:put ("1" + 1)`, "cannot apply + to str and num\n"},
		{"order of text and number", `:put ("1" < 1)`, "cannot compare if str is less than num\n"},
		{"delay", `:delay soon`, "invalid value for argument delay-time\n"},
		{"serialize to", `:put [:serialize to=xml 1]`, "input does not match any value of to\n"},
		{"serialize options", `:put [:serialize to=json options=json.nice 1]`, "input does not match any value of options\n"},
		{"negated text", `:put (-"x")`, "cannot negate str\n"},
		{"number to match", `:put (5 ~ "5")`, "cannot match num with str\n"},
		{"regular expression", `:put ("x" ~ "(")`, "invalid regular expression\n"},
		{"logic", `:put (true && "x")`, "conditional not boolean\n"},
		{"for", `:for i from=a to=2 do={}`, "invalid value for argument from\n"},
		{"for without step", `:for i from=1 to=2 step=0 do={}`, "invalid value for argument step\n"},
		{"pick", `:put [:pick "abc" x]`, "invalid value for argument begin\n"},
		{"parse", `:put [:parse "/ttt"]`, "bad command name ttt (line 1 column 2)\n"},
	})
}

// What the manual refuses, or does not say to work, is a syntax error, and then nothing at all runs.
func TestSyntaxErrorsRunNothing(t *testing.T) {
	for _, c := range []scriptCase{
		{"unterminated string", `"x`, "syntax error (line 1 column 1)"},
		{"unterminated string in put", `:put "x`, "syntax error (line 1 column 8)"},
		{"unterminated block", `:if (true) do={:put 1`, "syntax error (line 1 column 22)"},
		{"unterminated brackets", `:put [/disk find`, "syntax error (line 1 column 17)"},
		{"stray bracket", `:put 1 ]`, "syntax error (line 1 column 8)"},
		{"newline", ":put 1\n:put 2", "syntax error (line 1 column 7)"},
		{"carriage return", ":put 1\r:put 2", "syntax error (line 1 column 7)"},
		{"trailing newline", ":put 1\n", "syntax error (line 1 column 7)"},
		{"newline in block", "{\n:put 1}", "syntax error (line 1 column 2)"},
		{"newline in string", ":put \"a\nb\"", "syntax error (line 1 column 8)"},
		{"NUL in string", ":put \"a\x00b\"", "syntax error (line 1 column 8)"},
		{"NUL", "\x00", "syntax error (line 1 column 1)"},
		{"question mark escape", `:put "\?"`, "syntax error (line 1 column 7)"},
		{"lower-case hex", `:put "\4c"`, "syntax error (line 1 column 7)"},
		{"unknown escape", `:put "\d"`, "syntax error (line 1 column 7)"},
		{"lone dollar", `:put "a$ b"`, "syntax error (line 1 column 9)"},
		{"undeclared in string", `:put "a$b"`, "syntax error (line 1 column 9)"},
		{"operator without brackets", `:put 1 + 2`, "expected end of command (line 1 column 8)"},
		{"concatenation without brackets", `:put "a"."b"`, "syntax error (line 1 column 9)"},
		{"element without brackets", `:local a {1}; :put $a->0`, "syntax error (line 1 column 22)"},
		{"glued strings", `:put "a""b"`, "syntax error (line 1 column 9)"},
		{"two messages", `:put 1 2`, "expected end of command (line 1 column 8)"},
		{"missing do", `:if (true)`, "syntax error (line 1 column 11)"},
		{"block without braces", `:if (true) do=:put`, "syntax error (line 1 column 15)"},
		{"missing semicolon", `:if (true) do={} :put 1`, "expected end of command (line 1 column 18)"},
		{"comment in line", `:put 1 # x`, "expected end of command (line 1 column 8)"},
		{"handler's variable outside", `:onerror e in={} do={}; :put $e`, "syntax error (line 1 column 31)"},
		{"local in block outside", `:if (true) do={:local x 1}; :put $x`, "syntax error (line 1 column 35)"},
		{"address", `:put (10.0.0.1)`, "syntax error (line 1 column 7)"},
		{"bare id in lower case", `:put (*1f)`, "syntax error (line 1 column 7)"},
		{"function call", `:local f 1; $f`, "syntax error (line 1 column 13)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, failed := run(t, newBox(), c.script)
			if got != c.want+"\n" || !failed {
				t.Errorf("%q\n got %q\nwant %q", c.script, got, c.want)
			}
			got, _ = run(t, newBox(), `:put before; :onerror err in={ :put in; `+c.script+` } do={ :put caught }; :put after`)
			if got == "" || got[:4] == "befo" {
				t.Errorf("%q in a script: something ran: %q", c.script, got)
			}
		})
	}
}
