package manifests

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"sigs.k8s.io/yaml"

	"github.com/crankctl/crank/test/programs"
)

// alerts returns the rules, which are also the spec of a PrometheusRule.
func alerts(t *testing.T) []monitoringv1.Rule {
	t.Helper()
	var spec monitoringv1.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict(read(t, deploy+"prometheus/alerts.yaml"), &spec); err != nil {
		t.Fatal(err)
	}
	var rules []monitoringv1.Rule
	for _, g := range spec.Groups {
		rules = append(rules, g.Rules...)
	}
	if len(rules) == 0 {
		t.Fatal("there are no rules")
	}
	return rules
}

func TestAlertsSayWhatToDo(t *testing.T) {
	tests := string(read(t, deploy+"prometheus/alerts_test.yaml"))
	for _, rule := range alerts(t) {
		for _, annotation := range []string{"summary", "description", "runbook"} {
			if rule.Annotations[annotation] == "" {
				t.Errorf("%s has no %s", rule.Alert, annotation)
			}
		}
		if severity := rule.Labels["severity"]; severity != "critical" && severity != "warning" {
			t.Errorf("%s has the severity %q", rule.Alert, severity)
		}
		// Where it has to fire; that promtool agrees is another test's.
		if !strings.Contains(tests, `labels: 'ALERTS{alertname="`+rule.Alert+`"`) && !strings.Contains(tests, "alertname: "+rule.Alert+"\n") {
			t.Errorf("%s is not tested in alerts_test.yaml", rule.Alert)
		}
	}
}

func TestAlertsUseMetricsThatExist(t *testing.T) {
	page := metricsPage(t)
	for _, rule := range alerts(t) {
		page.check(t, rule.Alert, rule.Expr.String())
		page.check(t, rule.Alert, rule.Annotations["runbook"])
	}
}

func TestChartHasTheAlerts(t *testing.T) {
	if !bytes.Equal(read(t, deploy+"prometheus/alerts.yaml"), read(t, "../../helm/crank/files/alerts.yaml")) {
		t.Error("helm/crank/files/alerts.yaml is not a copy of deploy/prometheus/alerts.yaml: copy it")
	}
}

func TestPromtool(t *testing.T) {
	promtool(t, "check", "rules", deploy+"prometheus/alerts.yaml")
	promtool(t, "test", "rules", deploy+"prometheus/alerts_test.yaml")
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	if err := programs.Works("promtool"); err != nil {
		t.Skipf("NOT TESTED: whether Prometheus accepts these expressions, and whether the alerts fire: %v (Debian: prometheus)", err)
	}
	if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// scraped is a page of crank's metrics: the lines of every series, by its name.
type scraped map[string][]string

// metricsPage is the page that the tests of crank's metrics compare with: every series that has a
// closed list of label values is on it.
func metricsPage(t *testing.T) scraped {
	t.Helper()
	page := scraped{}
	for line := range strings.Lines(string(read(t, "../../pkg/metrics/testdata/busy.golden"))) {
		if name := metricName.FindString(line); name != "" && !strings.HasPrefix(line, "#") {
			page[name] = append(page[name], line)
		}
	}
	return page
}

var (
	metricName = regexp.MustCompile(`crank_[a-z_]+`)
	selector   = regexp.MustCompile(`(crank_[a-z_]+)\{([^}]*)\}`)
	matcher    = regexp.MustCompile(`([a-z]+)=~?"([^"]*)"`)
	aggregated = regexp.MustCompile(`by \(([a-z_, ]+)\)`)
)

// targetLabels are given by whoever scrapes.
var targetLabels = []string{"namespace", "job", "instance", "pod", "container", "le"}

// check fails the test for a metric in expr, or a label of one, or a label's value, that crank never shows.
func (page scraped) check(t *testing.T, where, expr string) {
	t.Helper()
	for _, name := range metricName.FindAllString(expr, -1) {
		if page[name] == nil {
			t.Errorf("%s: crank has no metric %s", where, name)
		}
	}
	for _, s := range selector.FindAllStringSubmatch(expr, -1) {
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			if slices.Contains(targetLabels, m[1]) {
				continue
			}
			for value := range strings.SplitSeq(m[2], "|") {
				if !page.has(s[1], m[1]+`="`+value+`"`) {
					t.Errorf("%s: %s never has %s=%q", where, s[1], m[1], value)
				}
			}
		}
	}
	for _, by := range aggregated.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(by[1], ", ") {
			known := slices.Contains(targetLabels, label)
			for _, name := range metricName.FindAllString(expr, -1) {
				known = known || page.has(name, label+`="`)
			}
			if !known {
				t.Errorf("%s: nothing in it has the label %s", where, label)
			}
		}
	}
}

func (page scraped) has(name, text string) bool {
	return slices.ContainsFunc(page[name], func(line string) bool { return strings.Contains(line, text) })
}
