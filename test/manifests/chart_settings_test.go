package manifests

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/crankctl/crank/pkg/config"
)

// elsewhere are the settings of crank that have a place of their own among the values.
var elsewhere = []string{"CRANK_BIND", "CRANK_HTTP", "CRANK_PREFIX"}

// property is what is used here of a JSON schema.
type property struct {
	Properties map[string]property
	Examples   []any
}

// settingsSchema are the settings that values.schema.json knows.
func settingsSchema(t *testing.T) map[string]property {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(chartDir, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema property
	if err := json.Unmarshal(content, &schema); err != nil {
		t.Fatal(err)
	}
	return schema.Properties["crank"].Properties["settings"].Properties
}

// camel is CRANK_STOP_TIMEOUT as stopTimeout.
func camel(variable string) string {
	words := strings.Split(strings.ToLower(strings.TrimPrefix(variable, "CRANK_")), "_")
	for i, word := range words[1:] {
		words[i+1] = strings.ToUpper(word[:1]) + word[1:]
	}
	return strings.Join(words, "")
}

// Each setting of crank is a value of the chart, and no other. The example in the schema, which is not
// the default, becomes the setting's variable, and crank accepts it.
func TestSettings(t *testing.T) {
	schema := settingsSchema(t)
	for _, variable := range config.Variables() {
		if slices.Contains(elsewhere, variable) {
			continue
		}
		t.Run(variable, func(t *testing.T) {
			name := camel(variable)
			setting, ok := schema[name]
			delete(schema, name)
			if !ok || len(setting.Examples) != 1 {
				t.Fatalf("crank.settings.%s is not in values.schema.json, or has not one example", name)
			}
			example := setting.Examples[0]
			bare := load(t, corev1.Container{Env: []corev1.EnvVar{{Name: "CRANK_BIND", Value: ":8080"}}})
			values, err := json.Marshal(map[string]any{"crank": map[string]any{"settings": map[string]any{name: example}}})
			if err != nil {
				t.Fatal(err)
			}
			r, err := render(t, "web", ci(t, "entrypoint"), string(values))
			if err != nil {
				t.Fatalf("crank takes what the schema refuses: %v", err)
			}
			app := container(t, only[*appsv1.Deployment](t, r.objects).Spec.Template.Spec, "app")
			i := slices.IndexFunc(app.Env, func(v corev1.EnvVar) bool { return v.Name == variable })
			if i < 0 || app.Env[i].Value != fmt.Sprint(example) {
				t.Fatalf("%s is not %v in %v", variable, example, app.Env)
			}
			if got := load(t, app); slices.Equal(settingsOf(got), settingsOf(bare)) {
				t.Errorf("%v is the default", example)
			}
		})
	}
	for name := range schema {
		t.Errorf("crank.settings.%s is no setting of crank", name)
	}
}

func settingsOf(c config.Config) []string {
	var list []string
	for name, value := range c.Settings() {
		if !slices.Contains([]string{"bind", "http", "prefix"}, name) {
			list = append(list, name+"="+value)
		}
	}
	slices.Sort(list)
	return list
}

// What the chart takes for crank's defaults, where its values say nothing.
func TestDefaultsOfCrank(t *testing.T) {
	c := load(t, corev1.Container{})
	for name, test := range map[string]struct{ got, want config.Seconds }{
		"startTimeout": {c.StartTimeout, 30e9}, "stopTimeout": {c.StopTimeout, 30e9}, "drainDelay": {c.DrainDelay, 0},
	} {
		if test.got != test.want {
			t.Errorf("%s is %v; the chart's helpers say %v", name, test.got, test.want)
		}
	}
}

// The chart and crank read durations alike.
func TestDurations(t *testing.T) {
	for _, text := range []string{
		"0", "1", "30", "0.5", "1.25", "3600", "1000000", "5s", "1.5s", "90s", "1m", "1m30s", "1h", "1h30m", "1h2m3s4ms",
		"1.5h", "100ms", "999ms", "1001ms", "1us", "1µs", "1ns", "2m0.5s", "0.1s", "0.2s", "0.7s", "10m10s", "0s", "00012s", "1m1m",
	} {
		var want config.Seconds
		if err := want.Set(text); err != nil {
			t.Fatal(err)
		}
		for _, value := range []string{"'" + text + "'", text} {
			if value == text && strings.HasPrefix(text, "00") { // octal, for YAML
				continue
			}
			r := mustRender(t, ci(t, "entrypoint"), "crank: {settings: {drainDelay: 0, startTimeout: "+value+", stopTimeout: "+value+"}}")
			pod := only[*appsv1.Deployment](t, r.objects).Spec.Template.Spec
			seconds := time.Duration(want).Seconds()
			if got := *pod.TerminationGracePeriodSeconds; got != int64(math.Ceil(seconds))+5 {
				t.Errorf("%s: the grace period is %d", value, got)
			}
			if got := container(t, pod, "app").StartupProbe.FailureThreshold; got != int32(math.Ceil(seconds))+10 {
				t.Errorf("%s: the startup probe has %d failures", value, got)
			}
		}
	}
}
