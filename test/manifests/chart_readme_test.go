package manifests

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/kustomize/kyaml/yaml"

	"github.com/crankctl/crank/pkg/config"
)

var update = flag.Bool("update", false, "write the table in the chart's README again")

const tableEnd = "<!-- end of the table -->"

// The README's table of values is printed from values.yaml, so that no value is missing.
func TestReadme(t *testing.T) {
	path := filepath.Join(chartDir, "README.md")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	readme := string(content)
	begin := strings.Index(readme, "<!-- The table is printed")
	end := strings.Index(readme, tableEnd)
	if begin < 0 || end < begin {
		t.Fatal("the README has no place for the table")
	}
	begin += strings.Index(readme[begin:], "\n") + 1
	want := readme[:begin] + valuesTable(t) + readme[end:]
	if want == readme {
		return
	}
	if !*update {
		t.Fatalf("the table of values is not that of values.yaml: go test . -run TestReadme -update")
	}
	if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// valuesTable fails the test for a value that has no comment.
func valuesTable(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(chartDir, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(content, &document); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("\n| value | default | meaning |\n|---|---|---|\n")
	addRows(t, &b, "", document.Content[0])
	var settings []string
	for _, variable := range config.Variables() {
		if !slices.Contains(elsewhere, variable) {
			settings = append(settings, "`"+camel(variable)+"`")
		}
	}
	fmt.Fprintf(&b, "\nThe settings of crank, each as `crank.settings.NAME`; docs/configuration.md says what they mean: %s.\n\n", strings.Join(settings, ", "))
	return b.String()
}

// addRows adds a row for each key that has a comment with "# --", and looks into those without.
func addRows(t *testing.T, b *strings.Builder, prefix string, mapping *yaml.Node) {
	t.Helper()
	for i := 0; i < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		name := prefix + key.Value
		_, meaning, documented := strings.Cut(key.HeadComment, "# -- ")
		switch {
		case documented:
			meaning = strings.Join(strings.Fields(strings.ReplaceAll(meaning, "\n#", "\n")), " ")
			fmt.Fprintf(b, "| `%s` | %s | %s |\n", name, standard(t, value), strings.ReplaceAll(meaning, "|", `\|`))
		case value.Kind == yaml.MappingNode && len(value.Content) > 0:
			addRows(t, b, name+".", value)
		default:
			t.Errorf("%s has no comment that begins with # --", name)
		}
	}
}

// standard is a default as the table shows it.
func standard(t *testing.T, node *yaml.Node) string {
	t.Helper()
	var value any
	if err := node.Decode(&value); err != nil {
		t.Fatal(err)
	}
	if value == nil || value == "" {
		return ""
	}
	if text, ok := value.(string); ok {
		return "`" + text + "`"
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return "`" + string(text) + "`"
}

// Every key that the schema knows is in values.yaml, where people look for it.
func TestSchemaHasNothingHidden(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(chartDir, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema property
	if err := json.Unmarshal(content, &schema); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(chartDir, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	delete(schema.Properties, "global") // what a chart around this one has for all
	delete(schema.Properties["crank"].Properties, "settings")
	hidden(t, "", schema, values)
}

func hidden(t *testing.T, prefix string, schema property, values map[string]any) {
	t.Helper()
	for name, one := range schema.Properties {
		value, ok := values[name]
		if !ok {
			t.Errorf("%s%s is not in values.yaml", prefix, name)
			continue
		}
		if below, ok := value.(map[string]any); ok {
			hidden(t, prefix+name+".", one, below)
		}
	}
}

// The README's example works.
func TestReadmeExample(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(chartDir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(content)
	if example == nil {
		t.Fatal("the README has no example")
	}
	checkRelease(t, mustRender(t, string(example[1])))
}

// The notes' loop reloads one pod after another and stops at the first that fails, with its code, or that does not confirm its swap:
// kubectl exec can exit 0 when its connection breaks. The loop of docs/kubernetes.md is tested in test/readme.
func TestNotesReloadLoop(t *testing.T) {
	notes := mustRender(t, ci(t, "inject")).notes
	loop := regexp.MustCompile(`(?m)^    (\(pods=.*for pod in .*)$`).FindStringSubmatch(notes)
	if loop == nil {
		t.Fatalf("there is no loop in the notes:\n%s", notes)
	}
	const kubectl = `#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in
*" get pods "*) printf 'pod/web-%s\n' 1 2 3 ;;
*"exec pod/$BROKEN "*) exit $CODE ;;
*) echo 'swapped web 1 -> 2 in 1.0s' ;;
esac
`
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "kubectl"), []byte(kubectl), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		broken string
		exits  string
		pods   []string
		code   int
	}{{"none", "0", []string{"web-1", "web-2", "web-3"}, 0}, {"web-2", "4", []string{"web-1", "web-2"}, 4}, {"web-2", "0", []string{"web-1", "web-2"}, 1}} {
		calls := filepath.Join(t.TempDir(), "calls")
		cmd := exec.Command("sh", "-c", loop[1])
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "CALLS="+calls, "BROKEN="+test.broken, "CODE="+test.exits)
		out, _ := cmd.CombinedOutput()
		want := "--namespace shop get pods -l app.kubernetes.io/name=crank,app.kubernetes.io/instance=web --field-selector status.phase=Running -o name\n"
		for _, pod := range test.pods {
			want += "--namespace shop exec pod/" + pod + " -- /crank-bin/crankctl reload\n"
		}
		got, err := os.ReadFile(calls)
		if err != nil || string(got) != want || cmd.ProcessState.ExitCode() != test.code {
			t.Errorf("exit code %d, want %d, %v\n%s\nwant\n%s\nprinted %s", cmd.ProcessState.ExitCode(), test.code, err, got, want, out)
		}
	}
}
