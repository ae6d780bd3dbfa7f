package manifests

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// dashboard is what the tests look at of a Grafana dashboard.
type dashboard struct {
	SchemaVersion int
	Panels        []panel
	Annotations   struct {
		List []struct{ Name, Expr string }
	}
	Templating struct {
		List []struct{ Name, Definition string }
	}
}

type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Datasource               datasource
	Targets                  []struct {
		RefID, Expr string
		Datasource  datasource
	}
}

type datasource struct{ Type, UID string }

func loadDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	if err := json.Unmarshal(read(t, deploy+"grafana/dashboard.json"), &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Panels) == 0 {
		t.Fatal("there are no panels")
	}
	return d
}

// expressions are all PromQL expressions, by where they are.
func (d dashboard) expressions() map[string]string {
	list := map[string]string{}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			list[p.Title+" "+target.RefID] = target.Expr
		}
	}
	for _, a := range d.Annotations.List {
		list["annotation "+a.Name] = a.Expr
	}
	return list
}

func TestDashboardPanels(t *testing.T) {
	d := loadDashboard(t)
	ids, titles, taken := map[int]bool{}, map[string]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || titles[p.Title] {
			t.Errorf("%s: its id %d or its title is there twice", p.Title, p.ID)
		}
		ids[p.ID], titles[p.Title] = true, true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x > 23 {
					t.Fatalf("%s lies over %q, or beyond the right edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if len(p.Description) < 80 {
			t.Errorf("%s: its description does not say what to do: %q", p.Title, p.Description)
		}
		if len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			if target.Datasource != p.Datasource || p.Datasource != (datasource{"prometheus", "${datasource}"}) {
				t.Errorf("%s %s: its data source is not the one that is chosen", p.Title, target.RefID)
			}
		}
	}
}

func TestDashboardUsesMetricsThatExist(t *testing.T) {
	d, page := loadDashboard(t), metricsPage(t)
	for where, expr := range d.expressions() {
		page.check(t, where, expr)
		for _, variable := range []string{`namespace=~"$namespace"`, `job=~"$job"`, `instance=~"$instance"`} {
			if !strings.Contains(expr, variable) {
				t.Errorf("%s does not select %s", where, variable)
			}
		}
	}
	for _, v := range d.Templating.List {
		page.check(t, "variable "+v.Name, v.Definition)
	}
}

// TestDashboardExpressions has promtool parse each expression, as a recording rule.
func TestDashboardExpressions(t *testing.T) {
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	variables := strings.NewReplacer("$__rate_interval", "5m", "$namespace", ".*", "$job", ".*", "$instance", ".*")
	var rules []rule
	for _, expr := range loadDashboard(t).expressions() {
		rules = append(rules, rule{fmt.Sprintf("panel:%d", len(rules)), variables.Replace(expr)})
	}
	content, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(content), "$") {
		t.Errorf("a variable that the dashboard does not have:\n%s", content)
	}
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", path)
}
