package controlplane

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
)

const lowestPort = 10000

// FreeAddress is a loopback address for a program that must be told where to listen, and must find the port free
// again after a restart. It lies below the range from which the kernel takes the ports of outgoing connections: one
// from that range may be somebody's by the time the program listens. Where that range leaves nothing, it is the kernel's
// choice all the same.
func FreeAddress(ctx context.Context) (string, error) {
	const tries = 200
	var lc net.ListenConfig
	var fault error
	for range tries {
		port := portBetween(lowestPort, ephemeralFrom()-1)
		l, err := lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return l.Addr().String(), l.Close()
		}
		fault = err
	}
	return "", errors.Join(errors.New("no free loopback port"), fault)
}

// portBetween is 0, the kernel's choice, where there is none.
func portBetween(lowest, highest int) int {
	if highest < lowest {
		return 0
	}
	return lowest + rand.IntN(highest-lowest+1) //nolint:gosec // no secret
}

// ephemeralFrom is the first port that the kernel gives to outgoing connections.
func ephemeralFrom() int {
	const usual = 32768
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return usual
	}
	fields := strings.Fields(string(data))
	if len(fields) != 2 {
		return usual
	}
	first, err := strconv.Atoi(fields[0])
	if err != nil {
		return usual
	}
	return first
}
