// Package manifests tests what is deployed: the Helm chart, the kustomize overlays, the alerts. It
// is a module of its own, so that Kubernetes' types and Helm are no dependencies of crank.
package manifests
