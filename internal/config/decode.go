package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// decode turns the text into a Config and lists what the text has that a Config has not. encoding/json alone would
// stop at the first unknown key, match keys in any case, and not say where in a list it was.
func decode(data []byte) (Config, []error) {
	var cfg Config
	raw, err := yaml.YAMLToJSONStrict(data) // strict: a key given twice is a fault
	if err != nil {
		return cfg, []error{fmt.Errorf("not readable as YAML: %w", err)}
	}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return cfg, []error{err}
	}
	if tree == nil {
		return cfg, nil // an empty file: the checks name what is missing
	}
	faults := compare("", tree, reflect.TypeFor[Config]())
	if err := json.Unmarshal(raw, &cfg); err != nil && len(faults) == 0 {
		faults = append(faults, err)
	}
	return cfg, faults
}

// compare walks the document beside the type that is to hold it.
func compare(path string, v any, t reflect.Type) []error {
	if v == nil || t == reflect.TypeFor[Duration]() {
		return nil
	}
	switch t.Kind() {
	case reflect.Struct:
		return compareStruct(path, v, t)
	case reflect.Slice:
		list, ok := v.([]any)
		if !ok {
			return []error{fault(path, "must be a list")}
		}
		var faults []error
		for i, e := range list {
			faults = append(faults, compare(fmt.Sprintf("%s[%d]", path, i), e, t.Elem())...)
		}
		return faults
	default:
		return compareScalar(path, v, t.Kind())
	}
}

func compareStruct(path string, v any, t reflect.Type) []error {
	fields, ok := v.(map[string]any)
	if !ok {
		return []error{fault(path, "must be a section with keys")}
	}
	known := map[string]reflect.Type{}
	var names []string
	for f := range t.Fields() {
		name := f.Tag.Get("json")
		known[name] = f.Type
		names = append(names, name)
	}
	var faults []error
	for _, key := range sortedKeys(fields) {
		at := strings.TrimPrefix(path+"."+key, ".")
		if ft, ok := known[key]; ok {
			faults = append(faults, compare(at, fields[key], ft)...)
			continue
		}
		faults = append(faults, fault(at, "unknown key; known here: "+strings.Join(names, ", ")))
	}
	return faults
}

func compareScalar(path string, v any, kind reflect.Kind) []error {
	var ok bool
	var want string
	switch kind {
	case reflect.String:
		_, ok = v.(string)
		want = "must be text (quote it if it looks like a number)"
	case reflect.Bool:
		_, ok = v.(bool)
		want = "must be true or false"
	default:
		var n float64
		n, ok = v.(float64)
		ok = ok && n == float64(int(n))
		want = "must be a whole number"
	}
	if ok {
		return nil
	}
	return []error{fault(path, want)}
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func fault(path, text string) error {
	if path == "" {
		return errors.New(text)
	}
	return fmt.Errorf("%s: %s", path, text)
}
