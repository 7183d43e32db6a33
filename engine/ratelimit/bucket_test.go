package ratelimit

import (
	"fmt"
	"testing"
	"time"
)

func newBuckets(limit, keys int) (*Buckets, *clock) {
	c := &clock{time.Unix(1_800_000_000, 0)}
	return NewBuckets(Options{Limit: limit, Window: time.Minute, MaxKeys: keys, Now: c.Now}), c
}

func TestBucketRefills(t *testing.T) {
	t.Parallel()
	b, c := newBuckets(20, 10)
	for i := range 20 {
		if !b.Allow("a") {
			t.Fatalf("attempt %d of 20 was refused", i+1)
		}
	}
	if b.Allow("a") || !b.Allow("b") {
		t.Fatal("the 21st passed, or another key was affected")
	}
	c.now = c.now.Add(3*time.Second - time.Millisecond)
	if b.Allow("a") {
		t.Fatal("a token came too early")
	}
	c.now = c.now.Add(time.Millisecond)
	if !b.Allow("a") || b.Allow("a") {
		t.Fatal("not exactly one token after a twentieth of a minute")
	}
	c.now = c.now.Add(time.Hour)
	for i := range 21 {
		if b.Allow("a") != (i < 20) {
			t.Fatalf("after an hour: attempt %d", i+1)
		}
	}
	c.now = c.now.Add(-time.Hour) // a clock that was set back gives nothing
	if b.Allow("a") {
		t.Fatal("a token from a clock that went back")
	}
}

func TestBucketsAreBounded(t *testing.T) {
	t.Parallel()
	b, c := newBuckets(2, 3)
	for i := range 3 {
		b.Allow(fmt.Sprint("old", i))
	}
	if !b.Allow("new1") || !b.Allow("new2") || b.Allow("new3") {
		t.Fatal("new keys do not share one bucket while the table is full")
	}
	if !b.Allow("old0") || b.Len() > 4 {
		t.Fatalf("a known key was refused, or %d keys are kept", b.Len())
	}
	c.now = c.now.Add(time.Minute)
	if !b.Allow("new4") || b.Len() != 1 {
		t.Fatalf("full buckets were not swept: %d are kept", b.Len())
	}
}
