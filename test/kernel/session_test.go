//go:build kernel

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/rds-csi/rds-csi/internal/nvme"
)

// session is another host's connection to an export, NVMe/TCP spoken by hand. One kernel cannot play two hosts: it makes one
// multipath device of all connections to a subsystem, whatever their host NQNs, with one page cache. So this is a second
// host as the target sees it, and nothing of it passes through this kernel's initiator. One command at a time.
type session struct {
	t         *testing.T
	admin, io net.Conn
	last      uint16 // command id
}

// What the transport and the fabrics call things.
const (
	pduICReq, pduICResp, pduCommand, pduResponse, pduData = 0, 1, 4, 5, 7

	opFlush, opWrite, opRead, opFabrics = 0x00, 0x01, 0x02, 0x7f
	propertySet, fabricsConnect         = 0x00, 0x01

	sectorSize  = 512
	anyCntlID   = 0xffff
	registerCC  = 0x14
	enableWith  = 1 | 6<<16 | 4<<20 // commands of 64 bytes, completions of 16
	commandSize = 72                // with its PDU header
)

// newSession connects as host to what a publish context names.
func newSession(t *testing.T, host nvme.Host, published map[string]string) *session {
	t.Helper()
	address := net.JoinHostPort(published["nvmeAddress"], published["nvmePort"])
	s := &session{t: t, admin: dialQueue(t, address)}
	t.Cleanup(s.close)
	controller := s.connectQueue(s.admin, 0, anyCntlID, host, published["nqn"])
	enable := s.command(opFabrics, nil)
	enable[4] = propertySet
	binary.LittleEndian.PutUint32(enable[44:], registerCC)
	binary.LittleEndian.PutUint64(enable[48:], enableWith)
	_, err := s.do(s.admin, enable, nil, nil)
	must(t, err)
	s.io = dialQueue(t, address)
	s.connectQueue(s.io, 1, uint16(controller), host, published["nqn"])
	return s
}

// close ends it, as a host does that is done with a volume.
func (s *session) close() {
	for _, c := range []net.Conn{s.io, s.admin} {
		if c != nil {
			_ = c.Close()
		}
	}
}

func dialQueue(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp4", address, 10*time.Second)
	must(t, err)
	hello := make([]byte, 128)
	putHeader(hello, pduICReq, len(hello), 0, len(hello))
	_, err = c.Write(hello)
	must(t, err)
	kind, _, _ := readPDU(t, c)
	if kind != pduICResp {
		t.Fatalf("the target greets with PDU %d", kind)
	}
	return c
}

func putHeader(b []byte, kind byte, header, data, total int) {
	b[0], b[2], b[3] = kind, byte(header), byte(data)
	binary.LittleEndian.PutUint32(b[4:], uint32(total))
}

// readPDU gives the header with its eight common bytes, and the data.
func readPDU(t *testing.T, c net.Conn) (kind byte, header, data []byte) {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(30*time.Second)))
	common := make([]byte, 8)
	_, err := io.ReadFull(c, common)
	must(t, err)
	b := make([]byte, binary.LittleEndian.Uint32(common[4:]))
	copy(b, common)
	_, err = io.ReadFull(c, b[8:])
	must(t, err)
	if at := int(common[3]); at != 0 {
		data = b[at:]
	}
	return common[0], b[:common[2]], data
}

func (s *session) connectQueue(c net.Conn, queue, controller uint16, host nvme.Host, nqn string) (result uint64) {
	s.t.Helper()
	data := make([]byte, 1024)
	copy(data, uuidBytes(s.t, host.ID))
	binary.LittleEndian.PutUint16(data[16:], controller)
	copy(data[256:], nqn)
	copy(data[512:], host.NQN)
	connect := s.command(opFabrics, data)
	connect[4] = fabricsConnect
	binary.LittleEndian.PutUint16(connect[42:], queue)
	binary.LittleEndian.PutUint16(connect[44:], 31) // entries, less one
	result, err := s.do(c, connect, data, nil)
	must(s.t, err)
	return result & 0xffff
}

func uuidBytes(t *testing.T, id string) []byte {
	t.Helper()
	var a, b, c, d, e uint64
	_, err := fmt.Sscanf(id, "%8x-%4x-%4x-%4x-%12x", &a, &b, &c, &d, &e)
	must(t, err)
	out := binary.BigEndian.AppendUint64(nil, a<<32|b<<16|c)
	return binary.BigEndian.AppendUint64(out, d<<48|e)
}

// command is one with its data, if it has any, in the capsule.
func (s *session) command(op byte, data []byte) []byte {
	s.last++
	b := make([]byte, 64)
	b[0], b[1] = op, 0x40 // SGL
	binary.LittleEndian.PutUint16(b[2:], s.last)
	binary.LittleEndian.PutUint32(b[32:], uint32(len(data)))
	b[39] = 0x01 // at an offset in the capsule
	return b
}

// do sends a command and waits until it is done. What it reads goes to in.
func (s *session) do(c net.Conn, command, out, in []byte) (result uint64, err error) {
	s.t.Helper()
	pdu := make([]byte, commandSize, commandSize+len(out))
	at := 0
	if len(out) > 0 {
		at = commandSize
	}
	putHeader(pdu, pduCommand, commandSize, at, commandSize+len(out))
	copy(pdu[8:], command)
	_, err = c.Write(append(pdu, out...))
	must(s.t, err)
	for {
		kind, header, data := readPDU(s.t, c)
		switch kind {
		case pduData:
			copy(in[binary.LittleEndian.Uint32(header[12:]):], data)
		case pduResponse:
			if status := binary.LittleEndian.Uint16(header[22:]) >> 1; status != 0 {
				return 0, fmt.Errorf("%w: status %#x", errNVMe, status)
			}
			return binary.LittleEndian.Uint64(header[8:]), nil
		default:
			s.t.Fatalf("PDU %d", kind)
		}
	}
}

var errNVMe = errors.New("the target refuses")

func (s *session) transfer(op byte, offset int64, size int, data []byte) []byte {
	b := s.command(op, data)
	binary.LittleEndian.PutUint32(b[4:], 1) // NSID
	binary.LittleEndian.PutUint64(b[40:], uint64(offset/sectorSize))
	binary.LittleEndian.PutUint16(b[48:], uint16(size/sectorSize-1))
	return b
}

// WriteAt writes up to 8 KiB and flushes it.
func (s *session) WriteAt(p []byte, offset int64) (int, error) {
	if _, err := s.do(s.io, s.transfer(opWrite, offset, len(p), p), p, nil); err != nil {
		return 0, err
	}
	flush := s.command(opFlush, nil)
	binary.LittleEndian.PutUint32(flush[4:], 1)
	_, err := s.do(s.io, flush, nil, nil)
	return len(p), err
}

// ReadAt reads what the target has now.
func (s *session) ReadAt(p []byte, offset int64) (int, error) {
	read := s.transfer(opRead, offset, len(p), nil)
	binary.LittleEndian.PutUint32(read[32:], uint32(len(p)))
	read[39] = 0x5a // by way of the transport
	if _, err := s.do(s.io, read, nil, p); err != nil {
		return 0, err
	}
	return len(p), nil
}
