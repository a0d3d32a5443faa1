package controlplane

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
)

// FreeAddress is a loopback address for a program that must be told where to listen, and must find the port free
// again after a restart. It lies below the range from which the kernel takes the ports of outgoing connections: one
// from that range may be somebody's by the time the program listens.
func FreeAddress(ctx context.Context) (string, error) {
	const lowest, tries = 10000, 200
	highest := ephemeralFrom() - 1
	if highest <= lowest {
		return "", fmt.Errorf("no ports between %d and the kernel's own from %d on", lowest, highest+1)
	}
	var lc net.ListenConfig
	var fault error
	for range tries {
		port := lowest + rand.IntN(highest-lowest+1) //nolint:gosec // no secret
		l, err := lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return l.Addr().String(), l.Close()
		}
		fault = err
	}
	return "", errors.Join(errors.New("no free loopback port"), fault)
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
