package server

import (
	"net/http"
	"time"
)

// deadlines gives every write its own deadline, so that a stream may last and
// a stalled reader is still cut.
type deadlines struct {
	http.ResponseWriter
	control http.ResponseController
	now     func() time.Time
	next    time.Time
}

func (d *deadlines) extend() {
	// Moving the deadline at most once a second keeps it cheap in a fast stream.
	now := time.Now()
	if now.Before(d.next) {
		return
	}
	d.next = now.Add(time.Second)
	_ = d.control.SetWriteDeadline(now.Add(writeTimeout)) // not every writer has one
}

// Write implements http.ResponseWriter.
func (d *deadlines) Write(p []byte) (int, error) {
	d.extend()
	return d.ResponseWriter.Write(p)
}

// FlushError lets http.ResponseController flush.
func (d *deadlines) FlushError() error {
	d.extend()
	return d.control.Flush()
}

// Unwrap lets http.ResponseController find the connection.
func (d *deadlines) Unwrap() http.ResponseWriter { return d.ResponseWriter }

// status remembers what was answered, for the request log.
type status struct {
	http.ResponseWriter
	entry *Entry
}

// WriteHeader implements http.ResponseWriter.
func (s *status) WriteHeader(code int) {
	if s.entry.Status == 0 {
		s.entry.Status = code
	}
	s.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (s *status) Write(p []byte) (int, error) {
	if s.entry.Status == 0 {
		s.entry.Status = http.StatusOK
	}
	return s.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController find the writer below.
func (s *status) Unwrap() http.ResponseWriter { return s.ResponseWriter }
