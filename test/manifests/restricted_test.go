package manifests

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// restricted fails the test for every violation of the Pod Security Standard "restricted" in its
// newest version, and if there is no pod at all.
func restricted(t *testing.T, objects []runtime.Object) {
	t.Helper()
	pods := podSpecs(objects)
	if len(pods) == 0 {
		t.Error("there is no pod")
	}
	for name, spec := range pods {
		for _, violation := range violations(t, spec) {
			t.Errorf("%s: %s", name, violation)
		}
	}
}

func violations(t *testing.T, spec *corev1.PodSpec) []string {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	var list []string
	for _, result := range evaluator.EvaluatePod(level, &metav1.ObjectMeta{}, spec) {
		if !result.Allowed {
			list = append(list, fmt.Sprintf("%s (%s)", result.ForbiddenReason, result.ForbiddenDetail))
		}
	}
	return list
}

// podSpecs returns the pods of everything that makes some, by kind and name.
func podSpecs(objects []runtime.Object) map[string]*corev1.PodSpec {
	specs := map[string]*corev1.PodSpec{}
	for _, object := range objects {
		spec := podSpec(object)
		if spec == nil {
			continue
		}
		kind, name := object.GetObjectKind().GroupVersionKind().Kind, object.(metav1.Object).GetName()
		specs[kind+"/"+name] = spec
	}
	return specs
}

// podSpec returns nil for what makes no pods.
func podSpec(object runtime.Object) *corev1.PodSpec {
	switch o := object.(type) {
	case *corev1.Pod:
		return &o.Spec
	case *appsv1.Deployment:
		return &o.Spec.Template.Spec
	case *appsv1.StatefulSet:
		return &o.Spec.Template.Spec
	case *appsv1.DaemonSet:
		return &o.Spec.Template.Spec
	case *appsv1.ReplicaSet:
		return &o.Spec.Template.Spec
	case *batchv1.Job:
		return &o.Spec.Template.Spec
	case *batchv1.CronJob:
		return &o.Spec.JobTemplate.Spec.Template.Spec
	}
	return nil
}

func TestRestrictedRefuses(t *testing.T) {
	objects := decodeStrict(t, []byte(`
apiVersion: v1
kind: Pod
metadata: {name: loose}
spec: {hostNetwork: true, containers: [{name: a, image: b}]}
`))
	got := strings.Join(violations(t, podSpecs(objects)["Pod/loose"]), "\n")
	for _, want := range []string{"host namespaces", "allowPrivilegeEscalation", "unrestricted capabilities", "runAsNonRoot", "seccompProfile"} {
		if !strings.Contains(got, want) {
			t.Errorf("no violation names %s:\n%s", want, got)
		}
	}
}
