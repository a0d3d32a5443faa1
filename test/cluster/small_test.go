//go:build cluster

package main

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// background is for clean-ups, where the test's own context has ended.
func background() context.Context { return context.Background() }

// now as Kubernetes writes it.
func now() string { return metav1.Now().UTC().Format(time.RFC3339) }

func everything() labels.Selector { return labels.Everything() }
