package manifests

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// strictDecoder knows every kind that may be in a manifest, and refuses fields that the kind does
// not have, keys that are there twice, and kinds that it does not know.
var strictDecoder = func() runtime.Decoder {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientscheme.AddToScheme, monitoringv1.AddToScheme, gatewayv1.Install} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
}()

// decodeStrict returns the objects of a stream of YAML documents, in their order.
func decodeStrict(t *testing.T, yaml []byte) []runtime.Object {
	t.Helper()
	objects, err := decode(yaml)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func decode(yaml []byte) ([]runtime.Object, error) {
	var objects []runtime.Object
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(yaml)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		if empty(document) {
			continue
		}
		object, _, err := strictDecoder.Decode(document, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("cannot decode: %w\n%s", err, document)
		}
		objects = append(objects, object)
	}
}

// empty reports whether a document has nothing but comments.
func empty(document []byte) bool {
	for line := range bytes.Lines(document) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && !bytes.Equal(line, []byte("---")) {
			return false
		}
	}
	return true
}

// all returns the objects of one kind, in their order.
func all[T runtime.Object](objects []runtime.Object) []T {
	var list []T
	for _, object := range objects {
		if one, ok := object.(T); ok {
			list = append(list, one)
		}
	}
	return list
}

// only returns the one object of its kind.
func only[T runtime.Object](t *testing.T, objects []runtime.Object) T {
	t.Helper()
	list := all[T](objects)
	if len(list) != 1 {
		t.Fatalf("want one %T, have %d", *new(T), len(list))
	}
	return list[0]
}

func TestDecodeIsStrict(t *testing.T) {
	for name, yaml := range map[string]string{
		"unknown field":  "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndate: {}\n",
		"repeated key":   "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {}\ndata: {}\n",
		"unknown kind":   "apiVersion: v1\nkind: ConfigMapp\nmetadata: {name: a}\n",
		"wrong type":     "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {port: 80}\n",
		"no kind":        "metadata: {name: a}\n",
		"in the second":  "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\nkind: x\n",
		"custom kind":    "apiVersion: monitoring.coreos.com/v1\nkind: PodMonitor\nmetadata: {name: a}\nspec: {selektor: {}}\n",
		"gateway's kind": "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\nspec: {host: a}\n",
	} {
		t.Run(name, func(t *testing.T) {
			if objects, err := decode([]byte(yaml)); err == nil {
				t.Errorf("decoded as %v", objects)
			}
		})
	}
	if objects := decodeStrict(t, []byte("# a comment\n---\n\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")); len(objects) != 1 {
		t.Errorf("%d objects, want 1", len(objects))
	}
}
