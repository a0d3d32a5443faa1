package wire

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEventsArriveInOrder(t *testing.T) {
	var line bytes.Buffer
	sent := []Event{{Nonce: "n", Kind: Ready}, {Nonce: "n", Kind: Exit, Status: 137}, {Nonce: "n", Kind: End}}
	for _, e := range sent {
		if err := Send(&line, e); err != nil {
			t.Fatal(err)
		}
	}
	var got []Event
	err := Receive(&line, "n", func(e Event) bool { got = append(got, e); return true })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sent, got); diff != "" {
		t.Error(diff)
	}
}

func TestReceiveStopsWhenTold(t *testing.T) {
	in := strings.NewReader(`{"nonce":"n","kind":"end"}` + "\nnot an event\n")
	if err := Receive(in, "n", func(Event) bool { return false }); err != nil {
		t.Errorf("read past the end: %v", err)
	}
}

func TestAnotherRunsEventIsRefused(t *testing.T) {
	err := Receive(strings.NewReader(`{"nonce":"other","kind":"exit"}`+"\n"), "n", func(Event) bool { t.Error("accepted"); return true })
	if !errors.Is(err, ErrNotOurs) {
		t.Errorf("error %v", err)
	}
}

func TestGarbageIsAnError(t *testing.T) {
	if err := Receive(strings.NewReader("exit 0\n"), "n", func(Event) bool { return true }); err == nil {
		t.Error("garbage was taken for an event")
	}
}
