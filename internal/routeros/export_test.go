package routeros

// FrameForTest is what goes over the wire for a script, and the line that proves its success.
func FrameForTest(s Script) (command, ok string) {
	f := frameOf(s)
	return f.command, f.ok
}
