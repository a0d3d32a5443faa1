package routeros

import (
	"encoding/json"
	"errors"
	"testing"
)

type row struct {
	Bool   Bool   `json:"b"`
	Int    Int    `json:"n"`
	String String `json:"s"`
}

// The same value in every form that RouterOS has been seen, or is documented, to write (B32).
func TestTolerantDecoding_B32(t *testing.T) {
	tests := map[string]row{
		`{}`:                                      {},
		`{"b":null,"n":null,"s":null}`:            {},
		`{"b":[],"n":[],"s":[]}`:                  {},
		`{"b":"","n":"","s":""}`:                  {},
		`{"b":true,"n":5,"s":"x"}`:                {true, 5, "x"},
		`{"b":"true","n":"5","s":1234.000000}`:    {true, 5, "1234.000000"},
		`{"b":"yes","n":5.0,"s":true}`:            {true, 5, "true"},
		`{"b":"no","n":5.000000,"s":"a\"b"}`:      {false, 5, `a"b`},
		`{"b":false,"n":-1,"s":7}`:                {false, -1, "7"},
		`{"n":9223372036854775807}`:               {Int: 1<<63 - 1},
		`{"n":"9007199254740993.000000"}`:         {Int: 9007199254740993}, // no float64
		`{"n":1099511627776, "x":{"y":[1]}}`:      {Int: 1 << 40},
		"{\"s\":\"\\u00e4\",\"b\" : \t\"false\"}": {String: "ä"},
	}
	for text, want := range tests {
		var got row
		if err := (Reply{Lines: []string{text}}).JSON(0, &got); err != nil || got != want {
			t.Errorf("%s = %+v, %v", text, got, err)
		}
	}
}

func TestDecodingRefuses(t *testing.T) {
	for _, text := range []string{
		`{"b":"maybe"}`, `{"b":1}`, `{"b":{}}`, `{"b":[true]}`,
		`{"n":5.5}`, `{"n":"5 GiB"}`, `{"n":"1 024"}`, `{"n":1e3}`, `{"n":"0x10"}`, `{"n":"1/1"}`, `{"n":9223372036854775808}`, `{"n":true}`, `{"n":[5]}`, `{"n":"1_0"}`,
		`{"s":{}}`, `{"s":["x"]}`,
		``, `{`, `[]x`, `failure: x`, `{"n":5`,
	} {
		var v row
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

func FuzzDecode(f *testing.F) {
	for _, s := range []string{`5`, `"5"`, `[]`, `"yes"`, `5.0`, `1e9`, `-0`, `"+5"`, `{}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		var v struct {
			B *Bool
			N *Int
			S *String
		}
		for _, key := range []string{"B", "N", "S"} {
			_ = json.Unmarshal([]byte(`{"`+key+`":`+value+`}`), &v) // must not panic
		}
		if v.N != nil && json.Valid([]byte(value)) {
			again, err := json.Marshal(*v.N)
			var n Int
			if err != nil || json.Unmarshal(again, &n) != nil || n != *v.N {
				t.Errorf("%s is %d and then %d", value, *v.N, n)
			}
		}
	})
}
