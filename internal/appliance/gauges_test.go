package appliance

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rds-csi/rds-csi/internal/routeros"
)

func TestHealthIsReadWhateverItsForm(t *testing.T) {
	temperature := func(v float64) []Sensor {
		return []Sensor{{Name: "cpu-temperature", Part: "cpu", Kind: KindTemperature, Value: v}}
	}
	for what, c := range map[string]struct {
		reply string
		want  []Sensor
	}{
		"text":            {`[{".id":"*1","name":"cpu-temperature","type":"C","value":"48"}]`, temperature(48)},
		"a number":        {`[{"name":"cpu-temperature","type":"C","value":48}]`, temperature(48)},
		"converted":       {`[{"name":"cpu-temperature","type":"C","value":47.500000}]`, temperature(47.5)},
		"its unit in it":  {`[{"name":"cpu-temperature","value":"48C"}]`, temperature(48)},
		"no unit":         {`[{"name":"cpu-temperature","value":"48"}]`, temperature(48)},
		"a real zero":     {`[{"name":"cpu-temperature","type":"C","value":"0"}]`, temperature(0)},
		"properties":      {`{"cpu-temperature":48,".about":"x"}`, temperature(48)},
		"nil beside it":   {`[{"name":"board-temperature1","type":"C","value":[]},{"name":"cpu-temperature","type":"C","value":48}]`, temperature(48)},
		"not there":       {`[{"name":"psu2-temperature","type":"C","value":"not-present"},{"name":"cpu-temperature","type":"C","value":48}]`, temperature(48)},
		"negative":        {`[{"name":"board-temperature1","type":"C","value":"-5"},{"name":"cpu-temperature","type":"C","value":48}]`, temperature(48)},
		"without a name":  {`[{"type":"C","value":"1"},{"name":"cpu-temperature","type":"C","value":48}]`, temperature(48)},
		"nested nonsense": {`[{"name":"x","value":{"a":[1]}},{"name":"cpu-temperature","type":"C","value":48}]`, temperature(48)},
		"all kinds": {`[{"name":"fan1-speed","type":"RPM","value":"4320"},{"name":"psu1-power","type":"W","value":"61.5"},
			{"name":"psu1-state","type":"","value":"idle"},{"name":"fan-state","type":"","value":"ok"},{"name":"psu-voltage","type":"V","value":"24.1"},
			{"name":"poe-out-consumption","type":"W","value":"3"},{"name":"psu1-current","type":"mA","value":"350"},
			{"name":"fan-mode","value":"auto"},{"name":"switch-temperature","value":"40"},{"name":"humidity","type":"%","value":"40"}]`,
			[]Sensor{
				{Name: "fan1-speed", Part: "fan1", Kind: KindFan, Value: 4320},
				{Name: "psu1-power", Part: "psu1", Kind: KindPower, Value: 61.5},
				{Name: "psu1-state", Part: "psu1", Kind: KindState, Text: "idle"},
				{Name: "fan-state", Part: "fan", Kind: KindState, Text: "ok"},
				{Name: "psu-voltage", Part: "psu", Kind: KindVoltage, Value: 24.1},
				{Name: "poe-out-consumption", Part: "poe-out-consumption", Kind: KindPower, Value: 3},
				{Name: "psu1-current", Part: "psu1", Kind: KindOther, Value: 350}, // not 350 amperes
				{Name: "fan-mode", Part: "fan-mode", Kind: KindState, Text: "auto"},
				{Name: "switch-temperature", Part: "switch", Kind: KindTemperature, Value: 40},
				{Name: "humidity", Part: "humidity", Kind: KindOther, Value: 40},
			}},
	} {
		r, _ := newRDS(t, []string{strings.ReplaceAll(c.reply, "\n", "")})
		if got, err := r.Health(t.Context()); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v, want %+v", what, got, err, c.want)
		}
	}
}

func TestHealthFails(t *testing.T) {
	for what, c := range map[string]struct {
		reply any
		want  error
	}{
		"no rows":        {[]string{"[]"}, ErrUnsupported},
		"no properties":  {[]string{"{}"}, ErrUnsupported},
		"none readable":  {[]string{`[{"name":"cpu-temperature","type":"C","value":"?"}]`}, ErrUnsupported},
		"no such menu":   {failed(routeros.ErrSyntax, "bad command name health (line 1 column 9)"), ErrUnsupported},
		"noise":          {[]string{"hello"}, ErrAnswer},
		"null":           {[]string{"null"}, ErrAnswer},
		"a number":       {[]string{"5"}, ErrAnswer},
		"nothing":        {[]string{}, ErrAnswer},
		"an empty line":  {[]string{""}, ErrAnswer},
		"not reached":    {failed(routeros.ErrUnreachable, ""), ErrUnavailable},
		"not permitted":  {failed(routeros.ErrPermission, "not enough permissions (9)"), ErrPermission},
		"old":            {failed(routeros.ErrUnsupportedVersion, ""), ErrUnsupported},
		"something else": {failed(nil, "failure: sensors are busy"), ErrInUse},
	} {
		r, _ := newRDS(t, c.reply)
		got, err := r.Health(t.Context())
		if !errors.Is(err, c.want) || got != nil {
			t.Errorf("%s: %+v, %v, want %v", what, got, err, c.want)
		}
		if err != nil && !strings.Contains(err.Error(), "rds rds1: sensors: ") {
			t.Errorf("%s: %q does not say of what", what, err)
		}
	}
}

const everyCounter = HaveReadOps | HaveWriteOps | HaveReadBytes | HaveWriteBytes | HaveInFlight | HaveActive | HaveWait

func TestTrafficIsReadWhateverItsForm(t *testing.T) {
	full := Traffic{
		Slot: "p", ReadOps: 1234, WriteOps: 76, ReadBytes: 0, WriteBytes: 1.6e6, InFlight: 2,
		Active: 48*time.Second + 149*time.Millisecond, Wait: 0, Have: everyCounter,
	}
	const numbers = `{".id":"*9","active-time":"00:00:48.149","in-flight-ops":2,"read-ops":243401,"read-ops-per-second":1234,"read-rate":0,` +
		`"slot":"p","wait-time":"00:00:00","write-ops-per-second":76,"write-rate":12800000}`
	const texts = `{"active-time":"48s149ms","in-flight-ops":"2","read-ops-per-second":"1 234","read-rate":"0bps",` +
		`"wait-time":"0ms","write-ops-per-second":"76","write-rate":"12.8Mbps"}`
	for what, c := range map[string]struct {
		lines []string
		want  []Traffic
	}{
		"numbers":     {[]string{"p " + numbers}, []Traffic{full}},
		"texts":       {[]string{"p " + texts}, []Traffic{full}},
		"a list":      {[]string{"p [" + numbers + "]"}, []Traffic{full}},
		"said twice":  {[]string{"p " + numbers, "p " + texts}, []Traffic{full}},
		"of nobody":   {nil, []Traffic{}},
		"nil":         {[]string{"p "}, []Traffic{}},
		"an empty":    {[]string{"p []"}, []Traffic{}},
		"no counters": {[]string{`p {".id":"*9","slot":"p"}`, "q " + numbers}, []Traffic{func() Traffic { q := full; q.Slot = "q"; return q }()}},
		"some": {[]string{`p {"read-rate":"8kbps","write-rate":"fast","in-flight-ops":[],"active-time":48149,"read-ops-per-second":"0"}`},
			[]Traffic{{Slot: "p", ReadBytes: 1000, Have: HaveReadBytes | HaveReadOps}}},
	} {
		r, sent := newRDS(t, c.lines)
		got, err := r.Traffic(t.Context(), "p", "q", "p ")
		if err != nil || !slices.Equal(got, c.want) || len(sent.sent) != 1 {
			t.Errorf("%s: %+v, %v after %d commands, want %+v", what, got, err, len(sent.sent), c.want)
		}
	}
	if !full.Has(HaveActive|HaveWait) || (Traffic{Have: HaveActive}).Has(HaveActive|HaveWait) {
		t.Error("Has means all of them")
	}
}

func TestTrafficFails(t *testing.T) {
	for what, c := range map[string]struct {
		reply any
		want  error
	}{
		"noise":           {[]string{"hello"}, ErrAnswer},
		"noise behind":    {[]string{"p hello"}, ErrAnswer},
		"a number":        {[]string{"p 5"}, ErrAnswer},
		"cut off":         {[]string{`p {"read-rate":1`}, ErrAnswer},
		"two rows":        {[]string{`p [{"read-rate":1},{"read-rate":2}]`}, ErrAnswer},
		"somebody else's": {[]string{`q {"read-rate":1}`}, ErrAnswer},
		"not reached":     {failed(routeros.ErrUnreachable, ""), ErrUnavailable},
		"a text":          {failed(nil, "failure: no counters"), ErrAnswer},
	} {
		r, _ := newRDS(t, c.reply)
		got, err := r.Traffic(t.Context(), "p")
		if !errors.Is(err, c.want) || got != nil {
			t.Errorf("%s: %+v, %v, want %v", what, got, err, c.want)
		}
		if err != nil && !strings.Contains(err.Error(), "rds rds1: traffic: ") {
			t.Errorf("%s: %q does not say of what", what, err)
		}
	}
}

// The policy that monitors need is named where a monitor was refused, and nowhere else.
func TestRefusedMonitorNamesThePolicy(t *testing.T) {
	refused := &routeros.CommandError{RDS: "rds1", Command: trafficCommand, Text: "not enough permissions (9)", Err: routeros.ErrPermission}
	r, _ := newRDS(t, refused, failed(routeros.ErrPermission, "not enough permissions (9)"))
	if _, err := r.Traffic(t.Context(), "p"); !errors.Is(err, ErrPermission) || !strings.Contains(err.Error(), "policy test") {
		t.Errorf("traffic: %v", err)
	}
	if _, err := r.List(t.Context()); !errors.Is(err, ErrPermission) || strings.Contains(err.Error(), "test") {
		t.Errorf("list: %v", err)
	}
}
