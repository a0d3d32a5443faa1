package appliance

import "strings"

// marksOf is the regular expression of the small files that stand beside a copy in dir.
func marksOf(dir Path, target string) string {
	return "^" + literal(dir.File()+"/"+target) + "[.][a-z0-9-]+[.](copying|done|failed)$"
}

// literal is a path as a regular expression. Of the characters that a path may have only the dot means something in one.
func literal(path string) string { return strings.ReplaceAll(path, ".", "[.]") }
