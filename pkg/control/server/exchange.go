package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/crankctl/crank/pkg/control"
	"github.com/crankctl/crank/pkg/supervisor"
)

// geteuid is a variable for tests alone.
var geteuid = os.Geteuid

// exchange is one request and its answer: either one JSON value, or a stream of lines.
type exchange struct {
	*http.Request
	w         http.ResponseWriter
	rc        *http.ResponseController
	asker     supervisor.Asker
	timeout   time.Duration // of one write
	streaming bool
}

// answerError is an error with its HTTP status.
type answerError struct {
	status int
	wire   control.Error
}

func (e *answerError) Error() string { return e.wire.Message }

func invalidf(status int, format string, args ...any) error {
	return &answerError{status, control.Error{Code: control.CodeInvalid, Message: fmt.Sprintf(format, args...)}}
}

func deniedf(status int, format string, args ...any) error {
	return &answerError{status, control.Error{Code: control.CodeDenied, Message: fmt.Sprintf(format, args...)}}
}

// read decodes the body, strictly: a field that this crank does not know would otherwise be a wish
// that it ignores. No body at all is an empty request.
func (x *exchange) read(into any) error {
	if err := x.rc.SetReadDeadline(time.Now().Add(ReadBodyTimeout)); err != nil {
		return err
	}
	body := json.NewDecoder(http.MaxBytesReader(x.w, x.Body, MaxBodyBytes))
	body.DisallowUnknownFields()
	if err := body.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return badBody(err)
	}
	if err := body.Decode(&struct{}{}); !errors.Is(err, io.EOF) {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return badBody(err)
		}
		return invalidf(http.StatusBadRequest, "there is something after the JSON object")
	}
	return x.rc.SetReadDeadline(time.Time{})
}

func badBody(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return invalidf(http.StatusRequestEntityTooLarge, "the request is larger than %d bytes", tooLarge.Limit)
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return invalidf(http.StatusBadRequest, "cannot read the request: %q must not be a %s", wrong.Field, wrong.Value)
	}
	return invalidf(http.StatusBadRequest, "cannot read the request: %v", err)
}

// onlyQuery refuses query parameters other than these.
func (x *exchange) onlyQuery(known ...string) error {
	for key := range x.URL.Query() {
		if !slices.Contains(known, key) {
			return invalidf(http.StatusBadRequest, "unknown query parameter %q: %s takes %v", key, x.URL.Path, known)
		}
	}
	return nil
}

// answer writes the whole answer.
func (x *exchange) answer(status int, v any) error {
	x.w.Header().Set("Content-Type", "application/json")
	if err := x.rc.SetWriteDeadline(time.Now().Add(x.timeout)); err != nil {
		return err
	}
	x.w.WriteHeader(status)
	return json.NewEncoder(x.w).Encode(v)
}

// line writes one line of a stream and sends it.
func (x *exchange) line(p control.Progress) error {
	if !x.streaming {
		x.streaming = true
		x.w.Header().Set("Content-Type", "application/x-ndjson")
	}
	if err := x.rc.SetWriteDeadline(time.Now().Add(x.timeout)); err != nil {
		return err
	}
	if err := json.NewEncoder(x.w).Encode(p); err != nil {
		return err
	}
	return x.rc.Flush()
}

// begin sends the header of a stream whose first line may be long in coming.
func (x *exchange) begin() error {
	x.streaming = true
	x.w.Header().Set("Content-Type", "application/x-ndjson")
	return x.rc.Flush()
}

// fail answers with err, if nothing was answered yet. Where a stream has begun, its last line has
// said it.
func (x *exchange) fail(err error) {
	if x.streaming {
		return
	}
	status, wire := http.StatusInternalServerError, control.Error{Code: control.CodeSelf, Message: err.Error()}
	var answer *answerError
	var refusal *supervisor.Refusal
	switch {
	case errors.As(err, &answer):
		status, wire = answer.status, answer.wire
	case errors.As(err, &refusal):
		status, wire = http.StatusConflict, control.Error{Code: refusal.Code, Message: refusal.Message}
	}
	_ = x.answer(status, wire) // the client has gone: nobody is left to tell
}
