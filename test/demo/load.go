//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"time"
)

// load is a pod that writes a block, flushes it to the device and writes the next, until it is told to stop.
type load struct {
	file *os.File
	stop context.CancelFunc
	done chan struct{}

	mu      sync.Mutex // guards what follows
	sum     hash.Hash
	blocks  int
	longest time.Duration
	err     error
}

const (
	blockSize  = 64 << 10
	blockEvery = 25 * time.Millisecond // 2.5 MB/s: enough to be under way at any moment, little enough to fit into memory
)

// startLoad begins writing. The load outlives the step that starts it and its context; finish ends it.
func startLoad(ctx context.Context, path string) (*load, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	l := &load{file: f, stop: stop, done: make(chan struct{}), sum: sha256.New()}
	go l.run(ctx)
	return l, nil
}

func (l *load) run(ctx context.Context) {
	defer close(l.done)
	tick := time.NewTicker(blockEvery)
	defer tick.Stop()
	block := make([]byte, blockSize)
	for ctx.Err() == nil {
		_, _ = rand.Read(block) // never fails
		began := time.Now()
		_, err := l.file.Write(block)
		if err == nil {
			err = l.file.Sync()
		}
		if !l.note(block, time.Since(began), err) {
			return
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (l *load) note(block []byte, took time.Duration, err error) (goOn bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.err = fmt.Errorf("the pod got an I/O error: %w", err)
		return false
	}
	_, _ = l.sum.Write(block) // never fails
	l.blocks++
	l.longest = max(l.longest, took)
	return true
}

// progress is how many blocks are safe, how long the slowest took, and whether writing has failed.
func (l *load) progress() (blocks int, longest time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.blocks, l.longest, l.err
}

// goesOn waits until more blocks are safe than at the call.
func (l *load) goesOn(ctx context.Context) error {
	before, _, err := l.progress()
	if err != nil {
		return err
	}
	return until(ctx, func(context.Context) error {
		now, _, err := l.progress()
		if err == nil && now < before+4 {
			err = fmt.Errorf("%d blocks written and no more", now)
		}
		return err
	})
}

// finish stops writing and closes the file, so that nothing holds the mount, and gives the checksum of what was written.
func (l *load) finish(ctx context.Context) (sum string, err error) {
	l.stop()
	select {
	case <-l.done:
	case <-ctx.Done():
		return "", fmt.Errorf("a write of the pod hangs: %w", context.Cause(ctx))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.file.Close(); err != nil {
		return "", err
	}
	return hex.EncodeToString(l.sum.Sum(nil)), l.err
}

// writeRandom writes size random bytes, flushes them to the device and gives their checksum.
func writeRandom(path string, size int64) (string, error) {
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	_, err = io.CopyN(io.MultiWriter(f, sum), rand.Reader, size)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return hex.EncodeToString(sum.Sum(nil)), err
}

// readBack gives a file's checksum as the device has it: the page cache is emptied first, or memory would answer.
func readBack(path string) (string, error) {
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o600); err != nil {
		return "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
