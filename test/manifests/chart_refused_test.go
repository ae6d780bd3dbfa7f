package manifests

import (
	"strings"
	"testing"
)

// refused are values that cannot work, and what is said about them. By default they change
// ci/entrypoint-values.yaml.
var refused = map[string]struct{ values, want string }{
	"no image":            {"image: {repository: ''}", "image.repository is empty"},
	"no version":          {"image: {tag: ''}", "image.tag and image.digest are empty"},
	"number as a tag":     {"image: {tag: 1.10}", "/image/tag': got number, want string"},
	"bad digest":          {"image: {digest: sha256:1}", "/image/digest"},
	"unknown value":       {"imagee: {}", "'imagee' not allowed"},
	"unknown mode":        {"mode: sidecar", "/mode': value must be one of 'entrypoint', 'inject'"},
	"inject, no command":  {"mode: inject", "mode inject needs command"},
	"no port":             {"binds: [{name: http}]", "bind http has no port"},
	"no name":             {"binds: [{port: 80}]", "missing property 'name'"},
	"port and uri":        {"binds: [{name: http, port: 80, uri: 'unix:///a'}]", "bind http has a uri, which says all"},
	"uri of a port":       {"binds: [{name: http, uri: 'tcp://:80'}]", "/binds/0/uri"},
	"port too high":       {"binds: [{name: http, port: 65536}]", "maximum: got 65,536, want 65,535"},
	"name twice":          {"binds: [{name: a, port: 80}, {name: a, port: 81}]", `the name "a" is there twice`},
	"port twice":          {"binds: [{name: a, port: 80}, {name: b, port: 80, host: 127.0.0.1}]", "TCP 80 is there twice, as a and as b"},
	"service port twice":  {"binds: [{name: a, port: 80}, {name: b, port: 81, servicePort: 80}]", "the Service would have TCP 80 twice, for a and for b"},
	"crank's own port":    {"binds: [{name: a, port: 9090}]", "bind a: port 9090 is crank.http.port"},
	"crank's own name":    {"binds: [{name: crank, port: 80}]", "crank is the name of crank.http.port"},
	"name for no port":    {"binds: [{name: Web_1, port: 80}]", "bind Web_1: the name of a port has 1 to 15 small letters"},
	"long name":           {"binds: [{name: abcdefghijklmnop, port: 80}]", "the name of a port has 1 to 15"},
	"two dashes":          {"binds: [{name: a--b, port: 80}]", "single dashes"},
	"digits only":         {"binds: [{name: '80', port: 80}]", "a letter among them"},
	"comma":               {"binds: [{name: a, uri: 'unix:///a,b'}]", "bind a has a comma"},
	"options with ?":      {"binds: [{name: a, port: 80, options: '?backlog=1'}]", "/binds/0/options"},
	"stdin of nothing":    {"{binds: [], crank: {settings: {stdinSocket: true}}}", "stdinSocket needs a bind"},
	"grace too short":     {"terminationGracePeriodSeconds: 39", "is 39, and crank needs 40: crank.settings.drainDelay (5s) + stopTimeout (30s) + 5"},
	"grace by a fraction": {"{terminationGracePeriodSeconds: 36, crank: {settings: {drainDelay: 0.5, stopTimeout: 30.6}}}", "is 36, and crank needs 37"},
	"grace of 0":          {"terminationGracePeriodSeconds: 0", "is 0, and crank needs 40"},
	"grace with minutes":  {"{terminationGracePeriodSeconds: 60, crank: {settings: {stopTimeout: 1m30s}}}", "is 60, and crank needs 100"},
	"start cut short":     {"probes: {startup: {periodSeconds: 2, failureThreshold: 10}}", "gives the app 20 s (periodSeconds × failureThreshold), and crank.settings.startTimeout is 30 s"},
	"probes of nothing":   {"crank: {http: {port: off}}", "probes.type is http and crank.http.port is off"},
	"exec without ctl":    {"{probes: {type: exec}, crank: {settings: {ctl: off}}}", "probes.type is exec and crank.settings.ctl is off"},
	"monitor of nothing":  {"{probes: {type: exec}, crank: {http: {port: off}}, podMonitor: {enabled: true}}", "podMonitor.enabled needs crank.http.port"},
	"setting as env":      {"env: [{name: CRANK_STOP_TIMEOUT, value: 5m}]", "env: CRANK_STOP_TIMEOUT is crank's own"},
	"bind as env":         {"env: [{name: CRANK_BIND, value: ':80'}]", "env: CRANK_BIND is crank's own"},
	"unknown setting":     {"crank: {settings: {stopTimeoutt: 5s}}", "'stopTimeoutt' not allowed"},
	"bind as a setting":   {"crank: {settings: {bind: ':80'}}", "'bind' not allowed"},
	"negative":            {"crank: {settings: {stopTimeout: -1}}", "minimum: got -1, want 0"},
	"no duration":         {"crank: {settings: {stopTimeout: 5 minutes}}", "/crank/settings/stopTimeout"},
	"ctl on":              {"crank: {settings: {ctl: true}}", "/crank/settings/ctl"},
	"updater's image":     {"updater: {enabled: true}", "updater.image.repository is empty"},
	"updater's version":   {"updater: {enabled: true, image: {repository: a}}", "updater.image.tag and digest are empty"},
	"updater shut out":    {"{updater: {enabled: true, image: {repository: a, tag: b}}, runtimeDir: {enabled: false}}", "updater.enabled needs runtimeDir.enabled"},
	"updater, ctl away":   {"{updater: {enabled: true, image: {repository: a, tag: b}}, crank: {settings: {ctl: /tmp/a}}}", "updater.enabled needs the control socket"},
	"updater may not":     {"{updater: {enabled: true, image: {repository: a, tag: b}}, crank: {settings: {ctlReadonly: true}}}", "updater.enabled needs the control socket"},
	"replicas and hpa":    {"{replicas: 3, autoscaling: {enabled: true}}", "replicas is 3 and autoscaling is enabled"},
	"hpa upside down":     {"autoscaling: {enabled: true, minReplicas: 5, maxReplicas: 2}", "minReplicas is 5 and maxReplicas 2"},
	"hpa without request": {"autoscaling: {enabled: true}", "is a share of resources.requests.cpu, which is not set"},
	"hpa of memory":       {"autoscaling: {enabled: true, targetMemoryUtilizationPercentage: 50}", "is a share of resources.requests.memory"},
	"hpa of nothing":      {"autoscaling: {enabled: true, targetCPUUtilizationPercentage: null}", "looks at nothing"},
	"two budgets":         {"podDisruptionBudget: {enabled: true, minAvailable: 1, maxUnavailable: 1}", "takes one of them"},
	"ingress, no service": {"{ingress: {enabled: true, hosts: [{host: a}]}, service: {enabled: false}}", "ingress.enabled needs the Service"},
	"ingress, no host":    {"ingress: {enabled: true}", "ingress.enabled needs ingress.hosts"},
	"ingress, no tcp":     {"{ingress: {enabled: true, hosts: [{host: a}]}, binds: [{name: dns, port: 53, protocol: UDP}]}", "ingress.enabled needs a bind with TCP"},
	"route, no gateway":   {"httpRoute: {enabled: true}", "httpRoute.enabled needs httpRoute.parentRefs"},
	"route to nowhere":    {"httpRoute: {enabled: true, bind: grpc, parentRefs: [{name: a}]}", "needs a bind with TCP; httpRoute.bind says grpc"},
	"relative path":       {"runtimeDir: {path: run/crank}", "/runtimeDir/path"},
	"path of the test":    {"test: {path: healthz}", "/test/path"},
	"number in a config":  {"config: {a: 1}", "/config/a': got number, want string"},
}

func TestRefused(t *testing.T) {
	for name, test := range refused {
		t.Run(name, func(t *testing.T) {
			_, err := render(t, "web", ci(t, "entrypoint"), test.values)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error is\n%v\nand does not say: %s", err, test.want)
			}
		})
	}
}

func TestAllThatIsWrongIsSaid(t *testing.T) {
	_, err := render(t, "web", "{mode: inject, terminationGracePeriodSeconds: 5, binds: [{name: a}, {name: a, port: 9090}]}")
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"image.repository", "needs command", "is 5, and crank needs 40", "bind a has no port", "is there twice", "is crank.http.port"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
}
