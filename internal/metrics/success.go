package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const lastSuccess = "rds_csi_state_last_success_timestamp_seconds"

func lastSuccessDesc() *prometheus.Desc {
	return prometheus.NewDesc(lastSuccess,
		"When an authority last told its state. Absent for one that has not answered yet.", []string{"source"}, nil)
}

// LastSuccess registers rds_csi_state_last_success_timestamp_seconds of the
// controller, on each replica. The function answers from memory when each authority
// last told its state; one that never did is missing, or has no time.
func LastSuccess(reg *Registry, times func() map[string]time.Time) error {
	if err := reg.only(Controller, lastSuccess); err != nil {
		return err
	}
	return reg.register(&gauges{desc: lastSuccessDesc(), ask: func(show func(float64, ...string)) {
		for source, at := range times() {
			if !at.IsZero() {
				show(seconds(at), source)
			}
		}
	}})
}

func seconds(at time.Time) float64 { return float64(at.UnixMilli()) / 1000 }
