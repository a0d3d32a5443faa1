package console

import (
	"cmp"
	"regexp"
	"strings"
)

// operate applies a binary operator.
func (f *frame) operate(op string, x, y Value) (Value, error) {
	switch op {
	case "&&", "||":
		return f.logic(op, x, y)
	case "=", "!=":
		return f.equality(op, x, y)
	case "<", ">", "<=", ">=":
		return order(op, x, y)
	case "~":
		return match(x, y)
	case ".":
		return concat(x, y)
	case ",":
		return appendTo(x, y)
	}
	return arithmetic(op, x, y)
}

func (f *frame) logic(op string, x, y Value) (Value, error) {
	a, err := f.truth(x)
	if err != nil {
		return nil, err
	}
	b, err := f.truth(y)
	if err != nil {
		return nil, err
	}
	if op == "&&" {
		return a && b, nil
	}
	return a || b, nil
}

// truth is what a condition needs. In a where clause a property alone asks whether it is set [V].
func (f *frame) truth(v Value) (bool, error) {
	if b, ok := v.(bool); ok {
		return b, nil
	}
	if f.row == nil {
		return false, failf("conditional not boolean")
	}
	return !empty(v) && Text(v) != "", nil
}

// equality compares without converting: "1" is not 1. In a where clause that makes rows vanish without a word [V],
// whether the question was = or !=.
func (f *frame) equality(op string, x, y Value) (Value, error) {
	if empty(x) || empty(y) {
		return (empty(x) && empty(y)) == (op == "="), nil
	}
	same := typeName(x) == typeName(y)
	if !same && f.row != nil {
		return nil, mismatchf("cannot compare %s with %s", typeName(x), typeName(y))
	}
	return (same && Text(x) == Text(y)) == (op == "="), nil
}

// order compares numbers and strings. Nothing is less than everything [V].
func order(op string, x, y Value) (Value, error) {
	var c int
	switch a := x.(type) {
	case int64:
		b, ok := y.(int64)
		if !ok && !empty(y) {
			return nil, mismatchf("cannot compare if %s is %s %s", typeName(x), wording(op), typeName(y))
		}
		c = cmp.Compare(a, b)
	case string:
		b, ok := y.(string)
		if !ok && !empty(y) {
			return nil, mismatchf("cannot compare if %s is %s %s", typeName(x), wording(op), typeName(y))
		}
		c = strings.Compare(a, b)
	default:
		if !empty(x) {
			return nil, mismatchf("cannot compare if %s is %s %s", typeName(x), wording(op), typeName(y))
		}
	}
	return holds(op, withNothing(x, y, c)), nil
}

func withNothing(x, y Value, c int) int {
	switch {
	case empty(x) && empty(y):
		return 0
	case empty(x):
		return -1
	case empty(y):
		return 1
	}
	return c
}

func holds(op string, c int) bool {
	switch op {
	case "<":
		return c < 0
	case ">":
		return c > 0
	case "<=":
		return c <= 0
	}
	return c >= 0
}

func wording(op string) string {
	if strings.HasPrefix(op, "<") {
		return "less than"
	}
	return "more than"
}

// match is the POSIX extended regular expression operator.
func match(x, y Value) (Value, error) {
	s, ok := x.(string)
	pattern, also := y.(string)
	if !ok || !also {
		return nil, mismatchf("cannot match %s with %s", typeName(x), typeName(y))
	}
	re, err := regexp.CompilePOSIX(pattern)
	if err != nil {
		return nil, mismatchf("invalid regular expression")
	}
	return re.MatchString(s), nil
}

// concat joins as strings. With an array it does so with each element [V].
func concat(x, y Value) (Value, error) {
	if list, ok := x.([]Value); ok {
		return each(list, func(v Value) (Value, error) { return concat(v, y) })
	}
	if list, ok := y.([]Value); ok {
		return each(list, func(v Value) (Value, error) { return concat(x, v) })
	}
	return limited(Text(x) + Text(y))
}

func each(list []Value, do func(Value) (Value, error)) (Value, error) {
	out := make([]Value, 0, len(list))
	for _, v := range list {
		w, err := do(v)
		if err != nil {
			return nil, err
		}
		out = append(out, w)
	}
	return out, nil
}

func appendTo(x, y Value) (Value, error) {
	out := append(elementsOf(x), elementsOf(y)...)
	if len(out) > maxSteps {
		return nil, &failure{text: "script error: array too long for the simulator", fatal: true}
	}
	return out, nil
}

// elementsOf is a value as the list that loops and the comma see: a value alone is a list of one.
func elementsOf(v Value) []Value {
	switch v := v.(type) {
	case nil, nothing:
		return nil
	case []Value:
		return append([]Value(nil), v...)
	case *Map:
		out := make([]Value, 0, v.Len())
		for _, k := range v.keys {
			out = append(out, v.values[k])
		}
		return out
	}
	return []Value{v}
}

func arithmetic(op string, x, y Value) (Value, error) {
	a, ok := x.(int64)
	b, also := y.(int64)
	if !ok || !also {
		return nil, mismatchf("cannot apply %s to %s and %s", op, typeName(x), typeName(y))
	}
	if b == 0 && (op == "/" || op == "%") {
		return nil, failf("division by zero")
	}
	switch op {
	case "+":
		return a + b, nil
	case "-":
		return a - b, nil
	case "*":
		return a * b, nil
	case "/":
		return a / b, nil
	}
	return a % b, nil
}
