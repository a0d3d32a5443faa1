package routeros

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
)

type row struct {
	Bool   Property `json:"b"`
	Int    Property `json:"n"`
	String Property `json:"s"`
}

// The same value in every form that RouterOS has been seen, or is documented, to write (B32).
func TestTolerantDecoding_B32(t *testing.T) {
	type want struct {
		b bool
		n int64
		s string
	}
	tests := map[string]want{
		`{"b":null,"n":null,"s":null}`:                                  {},
		`{"b":[],"n":[],"s":[]}`:                                        {},
		`{"b":"","n":"","s":""}`:                                        {},
		`{"b":true,"n":5,"s":"x"}`:                                      {true, 5, "x"},
		`{"b":"true","n":"5","s":1234.000000}`:                          {true, 5, "1234.000000"},
		`{"b":"yes","n":5.0,"s":true}`:                                  {true, 5, "true"},
		`{"b":"no","n":5.000000,"s":"a\"b"}`:                            {false, 5, `a"b`},
		`{"b":false,"n":-1,"s":7}`:                                      {false, -1, "7"},
		`{"b":[],"n":9223372036854775807,"s":"file"}`:                   {n: 1<<63 - 1, s: "file"},
		`{"b":[],"n":"9007199254740993.000000","s":"false"}`:            {n: 9007199254740993, s: "false"}, // no float64
		`{"b":[],"n":1099511627776,"s":"","x":{"y":[1]}}`:               {n: 1 << 40},
		`{"b":"no","b":"yes","n":1,"n":"2","s":"x","s":"y"}`:            {true, 2, "y"}, // the last one counts
		`{"b":{},"b":"yes","n":"x","n":[],"s":"x","s":null}`:            {true, 0, ""},
		"{\"s\":\"\\u00e4\",\"n\":\"+3\",\"b\" : \t\"false\"}":          {false, 3, "ä"},
		"{\"s\":\"\\ud83d\\ude00 \\n ä\",\"n\":\"-0\",\"b\":\"false\"}": {false, 0, "😀 \n ä"},
		"{\"s\":\"\xff\",\"n\":\"007\",\"b\":\"false\"}":                {false, 7, "\ufffd"},
	}
	for text, want := range tests {
		var got row
		err := (Reply{Lines: []string{text}}).JSON(0, &got)
		b, okb := got.Bool.Bool()
		n, okn := got.Int.Int()
		if err != nil || !okb || !okn || b != want.b || n != want.n || got.String.Text() != want.s {
			t.Errorf("%s = %+v, %v", text, got, err)
		}
	}
}

// What is not what it should be is not guessed at, and spoils nothing else.
func TestValuesThatAreSomethingElse(t *testing.T) {
	for _, text := range []string{
		`{}`, `{"b":"maybe","n":5.5}`, `{"b":1,"n":"5 GiB"}`, `{"b":{},"n":"1 024"}`, `{"b":[true],"n":1e3}`, `{"b":"TRUE","n":"0x10"}`, `{"b":"true ","n":"1/1"}`,
		`{"b":"[]","n":9223372036854775808}`, `{"b":{},"n":true}`, `{"b":{},"n":[5]}`, `{"b":{},"n":"1_0"}`, `{"b":{},"n":"` + strings.Repeat("1", 50) + `"}`,
	} {
		var v row
		err := (Reply{Lines: []string{text}}).JSON(0, &v)
		_, b := v.Bool.Bool()
		_, n := v.Int.Int()
		if err != nil || b || n || v.String.Text() != "" {
			t.Errorf("%s = %+v, %v", text, v, err)
		}
	}
	for _, text := range []string{`{"s":{}}`, `{"s":["x"]}`} {
		var v row
		if err := (Reply{Lines: []string{text}}).JSON(0, &v); err != nil || v.String.Text() != "" {
			t.Errorf("%s = %+v, %v", text, v, err)
		}
	}
}

// An answer that is cut off, or has anything behind its end, is none.
func TestDecodingRefuses(t *testing.T) {
	for _, text := range []string{
		``, `{`, `[]x`, `failure: x`, `{"n":5`, `[{"n":5}`, `[{"n":5},`, `[{"s":"x`, `[{"s":"\x"}]`, "[{\"s\":\"\n\"}]", `[{"s":"x"},{"s":"y"}] [`, `{"n":5}`, `["x"]`, `[5]`, `[[{}]]`,
	} {
		var v []row
		if err := (Reply{Lines: []string{text}}).JSON(0, &v); !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("%s = %+v, %v", text, v, err)
		}
	}
}

// A line that is not there is not an empty answer (B15).
func TestJSONOfAMissingLine_B15(t *testing.T) {
	var rows []row
	if err := (Reply{}).JSON(0, &rows); !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("err = %v", err)
	}
	if err := (Reply{Lines: []string{"[]"}}).JSON(0, &rows); err != nil || rows == nil || len(rows) != 0 {
		t.Errorf("an empty answer = %v, %v", rows, err)
	}
}

// A value reads as encoding/json reads a string, a number or a boolean.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{`5`, `"5"`, `[]`, `"yes"`, `5.0`, `1e9`, `-0`, `"+5"`, `{}`, `"\u0000\\"`, `"ä"`, "\"\xff\"", `null`, ` "x" `} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		var v struct{ V Property }
		var plain struct{ V any }
		text := `{"V":` + value + `}`
		if err := json.Unmarshal([]byte(text), &v); (err == nil) != (json.Unmarshal([]byte(text), &plain) == nil) {
			t.Fatalf("%s: %v", text, err)
		}
		if s, isText := plain.V.(string); isText && v.V.Text() != s {
			t.Errorf("%s is %q, not %q", value, v.V.Text(), s)
		}
		if n, ok := v.V.Int(); ok {
			var again Property
			if err := json.Unmarshal([]byte(strconv.FormatInt(n, 10)), &again); err != nil {
				t.Error(err)
			}
			if back, ok := again.Int(); !ok || back != n {
				t.Errorf("%s is %d and then %d", value, n, back)
			}
		}
	})
}
