package manifests

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/crankctl/crank/pkg/config"
	"github.com/crankctl/crank/pkg/sockets"
)

const chartDir = "../../helm/crank"

// release is a chart that was rendered.
type release struct {
	objects []runtime.Object
	yaml    string
	notes   string
}

// render renders the chart as helm template does, the schema included. values are YAML, a later one
// over an earlier one.
func render(t *testing.T, name string, values ...string) (release, error) {
	t.Helper()
	chart, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	merged := map[string]any{}
	for _, text := range values {
		var more map[string]any
		if err := yaml.Unmarshal([]byte(text), &more); err != nil {
			t.Fatal(err)
		}
		merged = util.MergeTables(more, merged)
	}
	all, err := util.ToRenderValues(chart, merged,
		common.ReleaseOptions{Name: name, Namespace: "shop", Revision: 1, IsInstall: true}, common.DefaultCapabilities.Copy())
	if err != nil {
		return release{}, err
	}
	files, err := engine.Engine{}.RenderWithContext(context.Background(), chart, all)
	if err != nil {
		return release{}, err
	}
	var r release
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if filepath.Base(file) == "NOTES.txt" {
			r.notes = files[file]
		} else {
			r.yaml += "---\n# " + file + "\n" + files[file] + "\n"
		}
	}
	if r.objects, err = decode([]byte(r.yaml)); err != nil {
		t.Fatalf("%v", err)
	}
	return r, nil
}

func mustRender(t *testing.T, values ...string) release {
	t.Helper()
	r, err := render(t, "web", values...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// ci returns the values of helm/crank/ci/NAME-values.yaml.
func ci(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(chartDir, "ci", name+"-values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// variations are changes of one or two values that must each make something that works.
var variations = map[string]string{
	"no binds":             "binds: []",
	"only unix":            "binds: [{name: http, uri: 'unix:///run/crank/http.sock', options: mode=0660}]",
	"only udp":             "binds: [{name: dns, port: 5353, protocol: UDP, servicePort: 53}]",
	"tcp and udp":          "binds: [{name: dns, port: 53}, {name: dns-udp, port: 53, protocol: UDP}]",
	"hosts":                "binds: [{name: a, port: 1, host: '::1'}, {name: b, port: 2, host: '[::1]'}, {name: c, port: 3, host: 127.0.0.1}]",
	"http off":             "{crank: {http: {port: off}}, probes: {type: exec}}",
	"http 'off'":           "{crank: {http: {port: 'off'}}, probes: {type: exec}}",
	"http off, no probes":  "{crank: {http: {port: off}}, probes: {startup: {enabled: false}, readiness: {enabled: false}, liveness: {enabled: false}}}",
	"exec probes":          "probes: {type: exec}",
	"crank on the PATH":    "{mode: entrypoint, command: [/app], crank: {path: crank}, probes: {type: exec}}",
	"crank elsewhere":      "{mode: entrypoint, command: [/app], crank: {path: /usr/local/bin/crank}, probes: {type: exec}}",
	"bare off":             "crank: {settings: {ctl: off, conf: off, terminationLog: off, memoryCheck: off}}",
	"numbers":              "crank: {settings: {stopTimeout: 45, drainDelay: 0, settle: 0.5, okCodes: 143, stopSignal: 3, maxDraining: 1000000, startTimeout: 1000000}}",
	"empty settings":       "crank: {settings: {okCodes: '', drainDelay: null, stopTimeout: null}}",
	"own name":             "crank: {settings: {name: shop.web_1}}",
	"no runtime directory": "runtimeDir: {enabled: false}",
	"config":               "config: {app.yaml: 'a: 1'}",
	"no service":           "service: {enabled: false}",
	"no service account":   "serviceAccount: {create: false}",
	"other account":        "serviceAccount: {name: someone}",
	"budget":               "podDisruptionBudget: {enabled: true}",
	"budget of none":       "podDisruptionBudget: {enabled: true, maxUnavailable: 0}",
	"budget by the rest":   "podDisruptionBudget: {enabled: true, minAvailable: 50%}",
	"scaled by memory":     "{autoscaling: {enabled: true, targetCPUUtilizationPercentage: null, targetMemoryUtilizationPercentage: 60}, resources: {requests: {memory: 1Gi}}}",
	"policy":               "networkPolicy: {enabled: true}",
	"ingress":              "ingress: {enabled: true, hosts: [{host: a.example.com}]}",
	"route":                "httpRoute: {enabled: true, parentRefs: [{name: gateway}]}",
	"monitor and rule":     "{podMonitor: {enabled: true}, prometheusRule: {enabled: true}}",
	"updater":              "updater: {enabled: true, image: {repository: updater, tag: v2}}",
	"any user":             "podSecurityContext: {runAsUser: null, runAsGroup: null, fsGroup: null}",
	"long grace":           "terminationGracePeriodSeconds: 3600",
	"long tag":             "image: {tag: v1.2.3_" + strings.Repeat("x", 110) + "-}",
	"other names":          "{nameOverride: front, fullnameOverride: shop-front}",
	"longest names":        "{nameOverride: " + strings.Repeat("n", 80) + "}",
	"zero pods":            "replicas: 0",
	"token for tcp":        "{env: [{name: CRANK_CTL_TOKEN_FILE, value: /token}], crank: {settings: {ctl: 'tcp://127.0.0.1:9999'}}}",
}

func TestChart(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(chartDir, "ci", "*-values.yaml"))
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), "-values.yaml")
		t.Run("ci/"+name, func(t *testing.T) { checkRelease(t, mustRender(t, ci(t, name))) })
	}
	for name, values := range variations {
		for _, base := range []string{"entrypoint", "inject"} {
			t.Run(base+"/"+name, func(t *testing.T) { checkRelease(t, mustRender(t, ci(t, base), values)) })
		}
	}
}

func TestLongReleaseName(t *testing.T) {
	r, err := render(t, strings.Repeat("r", 53), ci(t, "everything"), "nameOverride: "+strings.Repeat("n", 63))
	if err != nil {
		t.Fatal(err)
	}
	checkRelease(t, r)
}

// checkRelease is what holds whatever the values are.
func checkRelease(t *testing.T, r release) {
	t.Helper()
	restricted(t, r.objects)
	checkNames(t, r.objects)
	deployment := only[*appsv1.Deployment](t, r.objects)
	pod := deployment.Spec.Template.Spec
	if pod.EnableServiceLinks == nil || *pod.EnableServiceLinks || pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		t.Error("service links or a token are in the pod")
	}
	app := container(t, pod, "app")
	if security := app.SecurityContext; security.ReadOnlyRootFilesystem == nil || !*security.ReadOnlyRootFilesystem {
		t.Error("the root file system is not read-only")
	}
	cfg := load(t, app)
	checkGrace(t, pod, cfg)
	checkBinds(t, r.objects, app, cfg)
	checkProbes(t, app, cfg)
	checkMounts(t, pod)
	checkSelections(t, r.objects, deployment)
	if strings.Contains(r.notes, "<no value>") || strings.Contains(r.yaml, "<no value>") {
		t.Error("a value is missing")
	}
}

// checkNames does what decoding leaves to the API server.
func checkNames(t *testing.T, objects []runtime.Object) {
	t.Helper()
	for _, object := range objects {
		meta := object.(interface {
			GetName() string
			GetNamespace() string
			GetLabels() map[string]string
		})
		if wrong := validation.IsDNS1035Label(meta.GetName()); len(wrong) > 0 {
			t.Errorf("%T %s: %q", object, meta.GetName(), wrong)
		}
		if meta.GetNamespace() != "shop" {
			t.Errorf("%T %s is in namespace %q", object, meta.GetName(), meta.GetNamespace())
		}
		for key, value := range meta.GetLabels() {
			if wrong := slices.Concat(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)); len(wrong) > 0 {
				t.Errorf("%T: label %s=%s: %q", object, key, value, wrong)
			}
		}
	}
	for owner, spec := range podSpecs(objects) {
		ports := map[string]bool{}
		for _, port := range container(t, *spec, spec.Containers[0].Name).Ports {
			if wrong := validation.IsValidPortName(port.Name); len(wrong) > 0 || ports[port.Name] {
				t.Errorf("%s: port %s: %q or twice", owner, port.Name, wrong)
			}
			ports[port.Name] = true
		}
	}
}

func checkGrace(t *testing.T, pod corev1.PodSpec, cfg config.Config) {
	t.Helper()
	grace := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second
	if need := time.Duration(cfg.DrainDelay) + time.Duration(cfg.StopTimeout) + 5*time.Second; grace < need {
		t.Errorf("grace period %s, crank needs %s", grace, need)
	}
}

func checkBinds(t *testing.T, objects []runtime.Object, app corev1.Container, cfg config.Config) {
	t.Helper()
	ports := map[string]corev1.ContainerPort{}
	for _, port := range app.Ports {
		ports[port.Name] = port
	}
	for _, bind := range cfg.Bind {
		address, err := sockets.ParseAddress(bind)
		if err != nil {
			t.Error(err)
		}
		port, open := ports[address.Name]
		if inet := address.Port != 0; inet != open || inet && (int(port.ContainerPort) != address.Port || !strings.EqualFold(string(port.Protocol), address.Network)) {
			t.Errorf("%s: the container's port is %v", bind, port)
		}
		delete(ports, address.Name)
	}
	if cfg.HTTP != "off" && cfg.HTTP != fmt.Sprintf(":%d", ports["crank"].ContainerPort) {
		t.Errorf("CRANK_HTTP is %s, the port crank %d", cfg.HTTP, ports["crank"].ContainerPort)
	}
	delete(ports, "crank")
	if len(ports) > 0 {
		t.Errorf("ports that crank does not hold: %v", ports)
	}
	for _, service := range all[*corev1.Service](objects) {
		for _, port := range service.Spec.Ports {
			i := slices.IndexFunc(app.Ports, func(p corev1.ContainerPort) bool { return intstr.FromString(p.Name) == port.TargetPort })
			if i < 0 || app.Ports[i].Protocol != port.Protocol || port.Name == "crank" {
				t.Errorf("the Service's port %s leads nowhere", port.Name)
			}
		}
	}
}

func checkProbes(t *testing.T, app corev1.Container, cfg config.Config) {
	t.Helper()
	for _, probe := range []struct {
		path, verb string
		*corev1.Probe
	}{{"/startupz", "ready", app.StartupProbe}, {"/readyz", "ready", app.ReadinessProbe}, {"/livez", "info", app.LivenessProbe}} {
		switch {
		case probe.Probe == nil:
		case probe.HTTPGet != nil:
			if probe.HTTPGet.Path != probe.path || probe.HTTPGet.Port != intstr.FromString("crank") || cfg.HTTP == "off" {
				t.Errorf("%s: %v", probe.path, probe.HTTPGet)
			}
		case probe.Exec != nil:
			if filepath.Base(probe.Exec.Command[0]) != "crankctl" || probe.Exec.Command[1] != probe.verb {
				t.Errorf("%s: %v", probe.path, probe.Exec)
			}
		default:
			t.Errorf("%s is asked nothing", probe.path)
		}
	}
	if startup := app.StartupProbe; startup != nil {
		if have := time.Duration(startup.PeriodSeconds*startup.FailureThreshold) * time.Second; have < time.Duration(cfg.StartTimeout) {
			t.Errorf("the startup probe gives up after %s, crank after %s", have, time.Duration(cfg.StartTimeout))
		}
	}
}

// checkMounts sees to it that nobody but the app, and the updater if there is one, reaches the
// control socket, and that the app cannot write to what it runs.
func checkMounts(t *testing.T, pod corev1.PodSpec) {
	t.Helper()
	for _, name := range mounting(pod, "crank-run") {
		if name != "app" && name != "updater" {
			t.Errorf("%s reaches the control socket", name)
		}
	}
	volumes := map[string]bool{}
	for _, v := range pod.Volumes {
		volumes[v.Name] = true
	}
	for _, c := range containers(pod) {
		for _, mount := range c.VolumeMounts {
			if !volumes[mount.Name] {
				t.Errorf("%s mounts %s, which is no volume", c.Name, mount.Name)
			}
			if mount.Name == "crank-bin" && c.Name != "crank-install" && !mount.ReadOnly {
				t.Errorf("%s can write to crank's binaries", c.Name)
			}
			if mount.Name == "crank-updates" && c.Name == "app" && !mount.ReadOnly {
				t.Error("the app can write to its updates")
			}
		}
	}
}

// checkSelections compares every selector with the pods of the Deployment and with that of helm test.
func checkSelections(t *testing.T, objects []runtime.Object, deployment *appsv1.Deployment) {
	t.Helper()
	selectors := map[string]map[string]string{"Deployment": deployment.Spec.Selector.MatchLabels}
	for _, o := range all[*corev1.Service](objects) {
		selectors["Service"] = o.Spec.Selector
	}
	for _, o := range all[*policyv1.PodDisruptionBudget](objects) {
		selectors["PodDisruptionBudget"] = o.Spec.Selector.MatchLabels
	}
	for _, o := range all[*networkingv1.NetworkPolicy](objects) {
		selectors["NetworkPolicy"] = o.Spec.PodSelector.MatchLabels
	}
	for _, o := range all[*monitoringv1.PodMonitor](objects) {
		selectors["PodMonitor"] = o.Spec.Selector.MatchLabels
	}
	for what, selector := range selectors {
		if len(selector) == 0 || !labels.SelectorFromSet(selector).Matches(labels.Set(deployment.Spec.Template.Labels)) {
			t.Errorf("%s selects %v, the pods have %v", what, selector, deployment.Spec.Template.Labels)
		}
		for _, pod := range all[*corev1.Pod](objects) {
			if labels.SelectorFromSet(selector).Matches(labels.Set(pod.Labels)) {
				t.Errorf("%s selects the pod of helm test", what)
			}
		}
	}
	for _, o := range all[*autoscalingv2.HorizontalPodAutoscaler](objects) {
		if o.Spec.ScaleTargetRef.Name != deployment.Name || deployment.Spec.Replicas != nil {
			t.Error("the autoscaler and the Deployment do not fit together")
		}
	}
}

func TestModes(t *testing.T) {
	for name, test := range map[string]struct {
		base, values  string
		command, args []string
		crankctl      string // of the exec probes
	}{
		"the image's own": {"entrypoint", "", nil, nil, "/crankctl"},
		"with a command":  {"entrypoint", "command: [/app, -x]", []string{"/crank", "--"}, []string{"/app", "-x"}, "/crankctl"},
		"on the PATH":     {"entrypoint", "{command: [/app], crank: {path: crank}}", []string{"crank", "--"}, []string{"/app"}, "crankctl"},
		"elsewhere":       {"entrypoint", "crank: {path: /usr/bin/crank}", nil, nil, "/usr/bin/crankctl"},
		"inject":          {"inject", "", []string{"/crank-bin/crank", "--"}, []string{"/app", "--v1"}, "/crank-bin/crankctl"},
		"inject, path":    {"inject", "crank: {path: /usr/bin/crank}", []string{"/crank-bin/crank", "--"}, []string{"/app", "--v1"}, "/crank-bin/crankctl"},
	} {
		t.Run(name, func(t *testing.T) {
			r := mustRender(t, ci(t, test.base), test.values, "probes: {type: exec}")
			pod := only[*appsv1.Deployment](t, r.objects).Spec.Template.Spec
			app := container(t, pod, "app")
			if !slices.Equal(app.Command, test.command) || !slices.Equal(app.Args, test.args) {
				t.Errorf("command %q %q, want %q %q", app.Command, app.Args, test.command, test.args)
			}
			if got := app.ReadinessProbe.Exec.Command[0]; got != test.crankctl {
				t.Errorf("probes ask %s, want %s", got, test.crankctl)
			}
			if want := test.base == "inject"; want != (len(pod.InitContainers) == 1) {
				t.Errorf("init containers: %v", pod.InitContainers)
			}
			if !strings.Contains(r.notes, "-- "+test.crankctl+" reload") {
				t.Errorf("the notes do not name %s:\n%s", test.crankctl, r.notes)
			}
		})
	}
}

func TestImages(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0", 64)
	for name, test := range map[string]struct{ values, app, crank, test string }{
		"tags":          {"{image: {tag: v1}, crank: {image: {tag: v2}}}", "app:v1", "crank:v2", "crank:v2"},
		"chart's own":   {"crank: {image: {tag: ''}}", "app:1", "crank:0.1.0", "crank:0.1.0"},
		"digests":       {"{image: {digest: '" + digest + "'}, crank: {image: {digest: '" + digest + "'}}}", "app@" + digest, "crank@" + digest, "crank@" + digest},
		"number as tag": {"{image: {tag: '1.10'}}", "app:1.10", "crank:dev", "crank:dev"},
		"no injection":  {"mode: entrypoint", "app:1", "", "app:1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := mustRender(t, ci(t, "inject"), test.values)
			pod := only[*appsv1.Deployment](t, r.objects).Spec.Template.Spec
			if got := container(t, pod, "app").Image; got != test.app {
				t.Errorf("app: %s", got)
			}
			if test.crank != "" && container(t, pod, "crank-install").Image != test.crank {
				t.Errorf("crank: %s", container(t, pod, "crank-install").Image)
			}
			if got := only[*corev1.Pod](t, r.objects).Spec.Containers[0].Image; got != test.test {
				t.Errorf("test: %s", got)
			}
		})
	}
}

func TestHelmTest(t *testing.T) {
	for values, want := range map[string]string{
		"binds: [{name: http, port: 8080, servicePort: 80}]": "tcp://web.shop:80",
		"test: {path: /healthz}":                             "http://web.shop:8080/healthz",
		"binds: [{name: dns, port: 53, protocol: UDP}, {name: a, uri: 'unix:///a'}, {name: b, port: 5}]": "tcp://web.shop:5",
	} {
		pod := only[*corev1.Pod](t, mustRender(t, ci(t, "entrypoint"), values).objects)
		if command := pod.Spec.Containers[0].Command; command[0] != "/crankctl" || command[len(command)-1] != want {
			t.Errorf("%s: %q, want %s", values, command, want)
		}
		if pod.Annotations["helm.sh/hook"] != "test" || pod.Spec.ActiveDeadlineSeconds == nil {
			t.Errorf("%v, deadline %v", pod.Annotations, pod.Spec.ActiveDeadlineSeconds)
		}
	}
	for _, values := range []string{"test: {enabled: false}", "service: {enabled: false}", "binds: []", "binds: [{name: dns, port: 53, protocol: UDP}]"} {
		if pods := all[*corev1.Pod](mustRender(t, ci(t, "entrypoint"), values).objects); len(pods) > 0 {
			t.Errorf("%s: there is a test", values)
		}
	}
}

func TestRollOnConfigChange(t *testing.T) {
	template := func(values ...string) string {
		d := only[*appsv1.Deployment](t, mustRender(t, append([]string{ci(t, "entrypoint")}, values...)...).objects)
		text, err := yaml.Marshal(d.Spec.Template)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	const one, two, still = "config: {a: one}", "config: {a: two}", "rollOnConfigChange: false"
	if template(one) == template(two) {
		t.Error("a changed file does not replace the pods")
	}
	if template(one, still) != template(two, still) {
		t.Error("a changed file replaces the pods")
	}
	for _, volume := range container(t, only[*appsv1.Deployment](t, mustRender(t, ci(t, "entrypoint"), one).objects).Spec.Template.Spec, "app").VolumeMounts {
		if volume.SubPath != "" {
			t.Errorf("%s is mounted by subPath, which the kubelet never updates", volume.Name)
		}
	}
}

func TestEverythingIsOn(t *testing.T) {
	objects := mustRender(t, ci(t, "everything")).objects
	only[*corev1.Service](t, objects)
	only[*corev1.ServiceAccount](t, objects)
	only[*corev1.ConfigMap](t, objects)
	only[*policyv1.PodDisruptionBudget](t, objects)
	only[*autoscalingv2.HorizontalPodAutoscaler](t, objects)
	only[*networkingv1.NetworkPolicy](t, objects)
	only[*networkingv1.Ingress](t, objects)
	only[*gatewayv1.HTTPRoute](t, objects)
	only[*monitoringv1.PodMonitor](t, objects)
	if groups := only[*monitoringv1.PrometheusRule](t, objects).Spec.Groups; len(groups) == 0 || len(groups[0].Rules) == 0 {
		t.Error("the PrometheusRule has no rules")
	}
	if port := only[*gatewayv1.HTTPRoute](t, objects).Spec.Rules[0].BackendRefs[0].Port; port == nil || *port != 443 {
		t.Errorf("the HTTPRoute leads to port %v", port)
	}
	if len(only[*networkingv1.Ingress](t, objects).Spec.Rules[1].HTTP.Paths) != 1 {
		t.Error("a host without paths has not the path /")
	}
	templates, err := filepath.Glob(filepath.Join(chartDir, "templates", "*.yaml"))
	if err != nil || len(templates)+1 != len(objects) { // and tests/
		t.Errorf("%d objects of %d templates, %v: is everything on in ci/everything-values.yaml?", len(objects), len(templates)+1, err)
	}
}
