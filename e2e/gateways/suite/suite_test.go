// Package suite makes one program of the upstream conformance suite: `go test -c`. It takes the suite's own flags.
//
// MANIFESTS names a folder whose files stand in the place of the suite's own, such as resources/base.yaml. PATIENCE says how long a request
// may take to be answered as it should, such as 30s; the suite's own patience is five minutes.
package suite

import (
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"sigs.k8s.io/gateway-api-inference-extension/conformance"
)

// replaced is a file system with some of its files in another.
type replaced struct{ by, rest fs.FS }

func (r replaced) Open(name string) (fs.File, error) {
	file, err := r.by.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return r.rest.Open(name)
	}
	return file, err
}

func TestConformance(t *testing.T) {
	options := conformance.DefaultOptions(t)
	if folder, given := os.LookupEnv("MANIFESTS"); given {
		options.ManifestFS = []fs.FS{replaced{by: os.DirFS(folder), rest: &conformance.Manifests}}
	}
	if patience, given := os.LookupEnv("PATIENCE"); given {
		limit, err := time.ParseDuration(patience)
		if err != nil {
			t.Fatalf("PATIENCE: %v", err)
		}
		options.TimeoutConfig.MaxTimeToConsistency = limit
	}
	conformance.RunConformanceWithOptions(t, options)
}
