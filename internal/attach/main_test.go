package attach_test

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

// TestMain runs the model more often than rapid's hundred times: the rarest
// fault planted in the rule took 20,000 sequences to find. Flags still win.
func TestMain(m *testing.M) {
	more := map[string]string{"rapid.checks": "10000", "rapid.steps": "60"}
	for name, value := range more {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}
