//go:build kernel

package kernel

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
)

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

// lvmLabel is a physical volume's label for sector 1.
func lvmLabel() []byte {
	b := make([]byte, 512)
	copy(b, "LABELONE")
	binary.LittleEndian.PutUint64(b[8:], 1)
	binary.LittleEndian.PutUint32(b[20:], 32)
	copy(b[24:], "LVM2 001")
	copy(b[32:], "abcdefghijklmnopqrstuvwxyz012345")
	// LVM's checksum starts from its own value and is not inverted at the end.
	binary.LittleEndian.PutUint32(b[16:], ^crc32.Update(^uint32(0xf597a6cf), crc32.IEEETable, b[20:]))
	return b
}

// gpt is a protective MBR and an empty GUID partition table.
func gpt(size int64) []byte {
	b := make([]byte, 34*512)
	last := uint64(size/512 - 1)
	b[446+4], b[446+8] = 0xee, 1
	binary.LittleEndian.PutUint32(b[446+12:], uint32(last))
	b[510], b[511] = 0x55, 0xaa
	h := b[512:604]
	copy(h, "EFI PART\x00\x00\x01\x00")
	binary.LittleEndian.PutUint32(h[12:], 92)
	for offset, v := range map[int]uint64{24: 1, 32: last, 40: 34, 48: last - 33, 56: 0x1122334455667788, 64: 0x99aabbccddeeff00, 72: 2} {
		binary.LittleEndian.PutUint64(h[offset:], v)
	}
	binary.LittleEndian.PutUint32(h[80:], 128)
	binary.LittleEndian.PutUint32(h[84:], 128)
	binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(b[1024:]))
	binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h))
	return b
}

// swapHeader goes to offset 1024: version, last page; the magic ends the page.
func swapHeader() []byte {
	b := make([]byte, 4096-1024)
	binary.LittleEndian.PutUint32(b, 1)
	binary.LittleEndian.PutUint32(b[4:], 1000)
	copy(b[len(b)-10:], "SWAPSPACE2")
	return b
}

// mdSuperblock is version 0.90, which lies in the last 64 KiB.
func mdSuperblock() []byte {
	b := make([]byte, 4096)
	for n, v := range []uint32{0xa92b4efc, 0, 90, 0, 0, 1, 1, 1, 1024, 2, 2} {
		binary.LittleEndian.PutUint32(b[4*n:], v)
	}
	var sum uint64
	for n := 0; n < len(b); n += 4 {
		sum += uint64(binary.LittleEndian.Uint32(b[n:]))
	}
	binary.LittleEndian.PutUint32(b[152:], uint32(sum)+uint32(sum>>32))
	return b
}
