package manifests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/crankctl/crank/pkg/config"
)

const deploy = "../../deploy/"

// overlays are all that there are, and what sets one apart from the others.
var overlays = []struct {
	name    string
	control []string // the containers that reach the control socket
	app     []string // what is run in the app's container, "" being the image's ENTRYPOINT
	crank   []string // the containers with crank's own image
}{
	{name: "plain", control: []string{"app"}},
	{name: "inject", control: []string{"app"}, app: []string{"/crank-bin/crank", "--", "/app"}, crank: []string{"install"}},
	{name: "sidecar", control: []string{"app", "updater"}, crank: []string{"app", "install"}},
}

// kustomize builds one directory, as kubectl kustomize does.
func kustomize(t *testing.T, fs filesys.FileSystem, dir string) []runtime.Object {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	yaml, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return decodeStrict(t, yaml)
}

func TestEveryOverlayIsTested(t *testing.T) {
	entries, err := os.ReadDir(deploy + "kustomize/overlays")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, o := range overlays {
		want = append(want, o.name)
	}
	for _, e := range entries {
		if !slices.Contains(want, e.Name()) {
			t.Errorf("%s is not in the table", e.Name())
		}
	}
}

func TestOverlays(t *testing.T) {
	for _, o := range overlays {
		t.Run(o.name, func(t *testing.T) {
			objects := kustomize(t, filesys.MakeFsOnDisk(), deploy+"kustomize/overlays/"+o.name)
			restricted(t, objects)
			deployment := only[*appsv1.Deployment](t, objects)
			pod := deployment.Spec.Template.Spec
			checkPod(t, pod)
			checkApp(t, pod)
			checkSelectors(t, objects, deployment)
			if got := mounting(pod, "crank-run"); !slices.Equal(got, o.control) {
				t.Errorf("the control socket's directory is mounted in %v, want %v", got, o.control)
			}
			if app := container(t, pod, "app"); !slices.Equal(app.Command, o.app) {
				t.Errorf("the app's container runs %q, want %q", app.Command, o.app)
			}
			if got := withImage(pod, "crank"); !slices.Equal(got, o.crank) {
				t.Errorf("crank's image is that of %v, want %v", got, o.crank)
			}
		})
	}
}

// checkPod is what holds for every pod of crank's, beyond Pod Security.
func checkPod(t *testing.T, pod corev1.PodSpec) {
	t.Helper()
	if pod.EnableServiceLinks == nil || *pod.EnableServiceLinks {
		t.Error("enableServiceLinks is not false")
	}
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		t.Error("automountServiceAccountToken is not false")
	}
	if pod.SecurityContext.RunAsUser == nil || *pod.SecurityContext.RunAsUser != 65532 {
		t.Error("runAsUser is not 65532")
	}
	volumes := map[string]bool{}
	for _, v := range pod.Volumes {
		volumes[v.Name] = false
	}
	for _, c := range containers(pod) {
		security := c.SecurityContext
		if security == nil || security.ReadOnlyRootFilesystem == nil || !*security.ReadOnlyRootFilesystem {
			t.Errorf("%s: the root file system is not read-only", c.Name)
		}
		if security != nil && security.RunAsUser != nil {
			t.Errorf("%s has a uid of its own: crank refuses other users", c.Name)
		}
		if c.Resources.Limits.Memory().IsZero() {
			t.Errorf("%s has no memory limit", c.Name)
		}
		for _, m := range c.VolumeMounts {
			if _, ok := volumes[m.Name]; !ok {
				t.Errorf("%s mounts %s, which is no volume of the pod", c.Name, m.Name)
			}
			volumes[m.Name] = true
		}
	}
	for name, mounted := range volumes {
		if !mounted {
			t.Errorf("volume %s is mounted nowhere", name)
		}
	}
}

// checkApp has crank itself read what the app's container tells it, and compares that with the rest.
func checkApp(t *testing.T, pod corev1.PodSpec) {
	t.Helper()
	app := container(t, pod, "app")
	cfg := load(t, app)
	if need := 5*time.Second + time.Duration(cfg.DrainDelay) + time.Duration(cfg.StopTimeout); pod.TerminationGracePeriodSeconds == nil ||
		time.Duration(*pod.TerminationGracePeriodSeconds)*time.Second != need {
		t.Errorf("terminationGracePeriodSeconds is not drain delay + stop timeout + 5 = %s", need)
	}
	if !slices.ContainsFunc(app.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == cfg.Prefix && m.Name == "crank-run" }) {
		t.Errorf("CRANK_PREFIX %q is no mounted volume", cfg.Prefix)
	}
	ports := map[string]int32{}
	for _, p := range app.Ports {
		ports[p.Name] = p.ContainerPort
	}
	if got := fmt.Sprintf(":%d", ports["crank"]); cfg.HTTP != got {
		t.Errorf("CRANK_HTTP is %s, the port metrics %s", cfg.HTTP, got)
	}
	if want := fmt.Sprintf("http=:%d", ports["http"]); !slices.Equal(cfg.Bind, []string{want}) {
		t.Errorf("CRANK_BIND is %v, want %s as the ports say", cfg.Bind, want)
	}
	for path, probe := range map[string]*corev1.Probe{"/startupz": app.StartupProbe, "/readyz": app.ReadinessProbe, "/livez": app.LivenessProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Port != intstr.FromString("crank") {
			t.Errorf("no probe asks %s on the port metrics: %v", path, probe)
		}
	}
	if have := time.Duration(app.StartupProbe.PeriodSeconds*app.StartupProbe.FailureThreshold) * time.Second; have <= time.Duration(cfg.StartTimeout) {
		t.Errorf("the startup probe gives up after %s, before crank does (%s)", have, time.Duration(cfg.StartTimeout))
	}
}

// load fails the test also for a variable that means nothing to crank.
func load(t *testing.T, c corev1.Container) config.Config {
	t.Helper()
	for _, v := range os.Environ() {
		if name, value, _ := strings.Cut(v, "="); strings.HasPrefix(name, "CRANK_") {
			t.Setenv(name, value) // puts it back
			os.Unsetenv(name)
		}
	}
	for _, v := range c.Env {
		t.Setenv(v.Name, v.Value)
	}
	var args []string
	if len(c.Command) > 0 {
		args = append(c.Command[1:len(c.Command):len(c.Command)], c.Args...)
	}
	cfg, err := config.Load(args)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Warnings) > 0 {
		t.Errorf("crank warns: %q", cfg.Warnings)
	}
	return cfg
}

func checkSelectors(t *testing.T, objects []runtime.Object, deployment *appsv1.Deployment) {
	t.Helper()
	labels := deployment.Spec.Template.Labels
	service, budget := only[*corev1.Service](t, objects), only[*policyv1.PodDisruptionBudget](t, objects)
	if budget.Spec.Selector == nil {
		t.Fatal("the PodDisruptionBudget selects no pod")
	}
	for what, selector := range map[string]map[string]string{
		"Deployment": deployment.Spec.Selector.MatchLabels, "Service": service.Spec.Selector, "PodDisruptionBudget": budget.Spec.Selector.MatchLabels,
	} {
		if len(selector) == 0 {
			t.Errorf("%s selects every pod", what)
		}
		for k, v := range selector {
			if labels[k] != v {
				t.Errorf("%s selects %s=%s, the pods have %q", what, k, v, labels[k])
			}
		}
	}
	if account := only[*corev1.ServiceAccount](t, objects); account.Name != deployment.Spec.Template.Spec.ServiceAccountName {
		t.Errorf("the ServiceAccount is %s, the pods use %s", account.Name, deployment.Spec.Template.Spec.ServiceAccountName)
	}
	app := container(t, deployment.Spec.Template.Spec, "app")
	for _, p := range service.Spec.Ports {
		if !slices.ContainsFunc(app.Ports, func(c corev1.ContainerPort) bool { return c.Name == p.TargetPort.String() }) {
			t.Errorf("the Service's port %s leads to no port of the app's container", p.Name)
		}
	}
	if port := deployment.Spec.Template.Annotations["prometheus.io/port"]; !slices.ContainsFunc(app.Ports, func(c corev1.ContainerPort) bool {
		return c.Name == "crank" && strconv.Itoa(int(c.ContainerPort)) == port
	}) {
		t.Errorf("prometheus.io/port is %s, not the port metrics", port)
	}
}

// TestKustomizeExample builds what deploy/README.md tells people to write.
func TestKustomizeExample(t *testing.T) {
	readme, err := os.ReadFile(deploy + "README.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?s)```yaml\n(# kustomization.yaml\n.*?)```").FindSubmatch(readme)
	if example == nil {
		t.Fatal("deploy/README.md has no example of a kustomization.yaml")
	}
	fs := filesys.MakeFsInMemory()
	copyTo(t, fs, deploy+"kustomize", "/crank/deploy/kustomize")
	if err := fs.WriteFile("/shop/kustomization.yaml", example[1]); err != nil {
		t.Fatal(err)
	}
	objects := kustomize(t, fs, "/shop")
	restricted(t, objects)
	deployment := only[*appsv1.Deployment](t, objects)
	pod := deployment.Spec.Template.Spec
	checkPod(t, pod)
	checkApp(t, pod)
	checkSelectors(t, objects, deployment)
	for _, placeholder := range []string{"app", "crank"} {
		if left := withImage(pod, placeholder); len(left) > 0 {
			t.Errorf("%v still have the image %q", left, placeholder)
		}
	}
	if app := container(t, pod, "app"); len(app.Command) < 3 || app.Command[2] == "/app" {
		t.Errorf("the app's command was not replaced: %q", app.Command)
	}
}

func copyTo(t *testing.T, fs filesys.FileSystem, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return fs.WriteFile(to+strings.TrimPrefix(path, from), content)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// containers are all of a pod's, the init containers last.
func containers(pod corev1.PodSpec) []corev1.Container {
	return append(slices.Clone(pod.Containers), pod.InitContainers...)
}

func container(t *testing.T, pod corev1.PodSpec, name string) corev1.Container {
	t.Helper()
	for _, c := range containers(pod) {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("there is no container %s", name)
	return corev1.Container{}
}

// mounting names the containers that mount a volume.
func mounting(pod corev1.PodSpec, volume string) []string {
	var names []string
	for _, c := range containers(pod) {
		if slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == volume }) {
			names = append(names, c.Name)
		}
	}
	return names
}

func withImage(pod corev1.PodSpec, image string) []string {
	var names []string
	for _, c := range containers(pod) {
		if c.Image == image {
			names = append(names, c.Name)
		}
	}
	return names
}
