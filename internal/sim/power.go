package sim

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// power is whether the device is on, and what runs while it is.
type power struct {
	turn   chan struct{} // holds one token: who has it may reboot
	wanted atomic.Bool   // a script asked for a reboot

	mu   sync.Mutex
	on   chan struct{} // closed while the device is on
	up   *service      // what answers SSH, nil while nothing does
	next chan struct{} // closed when a service begins after a reboot, or none ever will
}

// service is one stretch of answering SSH, from a start to the next reboot.
type service struct {
	stop context.CancelFunc
	gone chan struct{} // closed when it has ended
}

func (p *power) init() {
	p.turn = make(chan struct{}, 1)
	p.turn <- struct{}{}
	p.on = make(chan struct{})
	close(p.on)
	p.next = make(chan struct{})
}

// begin registers a service.
func (p *power) begin(s *service) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up = s
	close(p.next)
	p.next = make(chan struct{})
}

// finish says that no service will follow.
func (p *power) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up = nil
	close(p.next)
	p.next = make(chan struct{})
}

// off ends the service, if there is one, and returns what to wait for when the device is on again.
func (p *power) off() (again <-chan struct{}) {
	p.mu.Lock()
	s, next := p.up, p.next
	p.up, p.on = nil, make(chan struct{})
	p.mu.Unlock()
	if s == nil {
		ready := make(chan struct{})
		close(ready)
		return ready
	}
	s.stop()
	<-s.gone
	return next
}

func (p *power) back() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.on)
}

// isOn returns a channel that is closed while the device is on.
func (p *power) isOn() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.on
}

// Reboot takes the device down, for as long as the quirk reboot-time says, and returns when it answers again:
// connections end, commands are cut off between two statements, exports go away, and what is back afterwards is what
// the flash and the pools hold. When ctx ends first the device comes back at once.
func (d *Device) Reboot(ctx context.Context) error {
	select {
	case <-d.power.turn:
		defer func() { d.power.turn <- struct{}{} }()
	case <-ctx.Done():
		return ctx.Err()
	}
	d.log.InfoContext(ctx, "the device goes down")
	again := d.power.off()
	d.jobs.halt()
	d.mu.Lock()
	d.lower(d.flash.Disks...)
	d.mu.Unlock()
	pause(ctx, d.quirks.duration(quirkRebootTime))
	err := d.boot(d.quirks.is(quirkExportsAfterReboot, lost))
	d.power.back()
	if err != nil {
		return err
	}
	d.log.InfoContext(ctx, "the device is back")
	select {
	case <-again:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// rebootSoon reboots in the background. One that is asked for while another is under way is that one.
func (d *Device) rebootSoon() {
	if len(d.power.turn) == 0 {
		return
	}
	d.work.Go(func() {
		if err := d.Reboot(d.life); err != nil && d.life.Err() == nil {
			d.log.Error("the device did not come back", "error", err)
		}
	})
}

// pause waits, or less if ctx ends.
func pause(ctx context.Context, t time.Duration) {
	if t <= 0 {
		return
	}
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
