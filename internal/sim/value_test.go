package sim

import (
	"crypto/ed25519"
	"crypto/rand"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func testKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func TestSizesAreBytesOrHaveABinarySuffix(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "53687091200": 53687091200, "50G": 53687091200, "1T": 1099511627776, "512M": 512 << 20, "4k": 4096,
		"1P": 1 << 50, "9223372036854775807": 1<<63 - 1,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q is %d (%v), want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "G", "-1", "1.5G", "1GiB", "1GG", "8192P", "9223372036854775808", "1 G", "0x10"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q is %d, want an error", text, got)
		}
	}
}

func TestNumbersArePrintedAsTheDevicePrintsThem(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 512: "512", 1000: "1 000", 243401: "243 401", 53687091200: "53 687 091 200", -1234: "-1 234", -123: "-123",
	} {
		if got := grouped(n); got != want {
			t.Errorf("%d grouped is %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{ // all of these were seen [R]
		1 << 40: "1024.0GiB", 50 << 30: "50.0GiB", 100 << 30: "100.0GiB", 1 << 30: "1024.0MiB", 10 << 30: "10.0GiB",
		3088486: "3016.1KiB", 11 * 1170000: "12.3MiB", 524: "524",
	} {
		if got := sized(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestUptime(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "00:00:00", 61 * time.Second: "00:01:01", 23*24*time.Hour + 4*time.Hour + 5*time.Minute + 6*time.Second: "3w2d04:05:06",
		24 * time.Hour: "1d00:00:00",
	} {
		if got := uptime(d); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
}

func TestPathsStayInside(t *testing.T) {
	for written, want := range map[string]string{
		"/storage-pool/x.img": "storage-pool/x.img", "storage-pool/x.img": "storage-pool/x.img", "//a//b/": "a/b",
		"a/..b/c": "a/..b/c",
	} {
		if got, err := cleanPath(written); err != nil || got != want {
			t.Errorf("%q is %q (%v), want %q", written, got, err, want)
		}
	}
	for _, written := range []string{"", "/", "..", "a/../b", "a/./b", "a\x00b", "a\nb", "a\xffb"} {
		if got, err := cleanPath(written); err == nil {
			t.Errorf("%q is %q, want an error", written, got)
		}
	}
}

func TestReleases(t *testing.T) {
	for text, minor := range map[string]int{"7.21": 21, "7.24.4": 24, "7.26beta4": 26, "7.9": 9} {
		if r, err := parseRelease(text); err != nil || r.minor != minor || r.text != text {
			t.Errorf("%s: %+v, %v", text, r, err)
		}
	}
	for _, text := range []string{"", "7", "6.49", "7.x", "latest"} {
		if _, err := parseRelease(text); err == nil {
			t.Errorf("%q is a release?", text)
		}
	}
}
