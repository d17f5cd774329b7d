//go:build tools

package suite

// The model server of the suite's manifests, so that go.mod knows what it is made from.
import _ "sigs.k8s.io/gateway-api/conformance/echo-basic"
