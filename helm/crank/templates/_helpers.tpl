{{/*
Names and labels. The name of everything is that of the release. Under another name in the
dependencies of a chart (an alias), and with a nameOverride, that name is appended, so that several
of these charts fit into one release.
*/}}
{{- define "crank.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "crank.fullname" -}}
{{- $name := include "crank.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if or (eq $name "crank") (contains $name .Release.Name) }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "crank.selectorLabels" -}}
app.kubernetes.io/name: {{ include "crank.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "crank.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "crank.selectorLabels" . }}
{{- with .Values.image.tag }}
app.kubernetes.io/version: {{ . | trunc 63 | trimAll "-._" | quote }}
{{- end }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* The pod of helm test is no pod of the Service. */}}
{{- define "crank.testLabels" -}}
app.kubernetes.io/name: {{ include "crank.name" . | trunc 58 | trimSuffix "-" }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "crank.metadata" -}}
name: {{ include "crank.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "crank.labels" . | nindent 2 }}
{{- end }}

{{- define "crank.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "crank.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The name of an image, from its values: a digest says more than a tag. */}}
{{- define "crank.imageName" -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag }}{{ end }}
{{- end }}

{{/* image and imagePullPolicy of a container that runs crank's own image. */}}
{{- define "crank.ownImage" -}}
{{- $image := .Values.crank.image -}}
image: {{ include "crank.imageName" (dict "repository" $image.repository "digest" $image.digest "tag" (default .Chart.AppVersion $image.tag)) | quote }}
imagePullPolicy: {{ $image.pullPolicy }}
{{- end }}

{{- define "crank.appImage" -}}
image: {{ include "crank.imageName" .Values.image | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{/* Whether crank's image is copied into the pod. */}}
{{- define "crank.installed" -}}
{{- if or (eq .Values.mode "inject") .Values.updater.enabled }}true{{ end }}
{{- end }}

{{/* Where the app's container has crank, and crankctl, which is beside it. */}}
{{- define "crank.crank" -}}
{{- if eq .Values.mode "inject" }}/crank-bin/crank{{ else }}{{ .Values.crank.path }}{{ end }}
{{- end }}

{{- define "crank.crankctl" -}}
{{- $crank := include "crank.crank" . }}
{{- if contains "/" $crank }}{{ trimSuffix "/" (dir $crank) }}/{{ end }}crankctl
{{- end }}

{{/* The port for probes and metrics, empty if it is off. YAML takes a bare off for false. */}}
{{- define "crank.httpPort" -}}
{{- $port := .Values.crank.http.port }}
{{- if not (or (kindIs "bool" $port) (eq (toString $port) "off")) }}{{ int $port }}{{ end }}
{{- end }}

{{/* One bind as crank reads it: name=tcp://host:port?options. */}}
{{- define "crank.bind" -}}
{{- $where := .uri }}
{{- if not $where }}
{{- $host := default "" .host }}
{{- if and (contains ":" $host) (not (hasPrefix "[" $host)) }}{{ $host = printf "[%s]" $host }}{{ end }}
{{- $where = printf "%s://%s:%d" (default "TCP" .protocol | lower) $host (int .port) }}
{{- end }}
{{- printf "%s=%s" .name $where }}{{ with .options }}?{{ . }}{{ end }}
{{- end }}

{{/*
A setting's value as its variable wants it. YAML takes a bare off for false; numbers are printed by
toJson, which does not write 1e+06.
*/}}
{{- define "crank.setting" -}}
{{- if and (kindIs "bool" .value) (not .value) (has .name (list "conf" "ctl" "memoryCheck" "terminationLog")) }}off
{{- else if kindIs "string" .value }}{{ .value }}
{{- else }}{{ toJson .value }}
{{- end }}
{{- end }}

{{/* A setting with a default: (dict "root" $ "name" "startTimeout" "default" "30s") */}}
{{- define "crank.settingOr" -}}
{{- $value := get .root.Values.crank.settings .name }}
{{- if or (kindIs "invalid" $value) (eq (toString $value) "") }}{{ .default }}
{{- else }}{{ include "crank.setting" (dict "name" .name "value" $value) }}
{{- end }}
{{- end }}

{{/* The variables of crank, as a list of a container. */}}
{{- define "crank.env" -}}
{{- $settings := .Values.crank.settings -}}
- name: CRANK_NAME
  value: {{ include "crank.settingOr" (dict "root" . "name" "name" "default" (include "crank.fullname" .)) | quote }}
{{- $binds := list }}
{{- range .Values.binds }}
{{- $binds = append $binds (include "crank.bind" .) }}
{{- end }}
{{- with $binds }}
- name: CRANK_BIND
  value: {{ join "," . | quote }}
{{- end }}
- name: CRANK_HTTP
  value: {{ with include "crank.httpPort" . }}{{ printf ":%s" . | quote }}{{ else }}"off"{{ end }}
{{- if .Values.runtimeDir.enabled }}
- name: CRANK_PREFIX
  value: {{ .Values.runtimeDir.path | quote }}
{{- end }}
{{- range $name, $value := omit $settings "name" }}
{{- $text := include "crank.setting" (dict "name" $name "value" $value) }}
{{- if not (or (kindIs "invalid" $value) (eq $text "")) }}
- name: CRANK_{{ snakecase $name | upper }}
  value: {{ $text | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* A duration, a number of seconds or like 1m30s, in seconds with their fraction. */}}
{{- define "crank.seconds" -}}
{{- $text := toString . }}
{{- if regexMatch "^[0-9.]+$" $text }}{{ float64 $text }}
{{- else }}
{{- $unit := dict "ns" 1e-9 "us" 1e-6 "µs" 1e-6 "μs" 1e-6 "ms" 1e-3 "s" 1.0 "m" 60.0 "h" 3600.0 }}
{{- $sum := 0.0 }}
{{- range regexFindAll "[0-9.]+(ns|us|µs|μs|ms|s|m|h)" $text -1 }}
{{- $number := regexFind "^[0-9.]+" . }}
{{- $sum = addf $sum (mulf (float64 $number) (get $unit (trimPrefix $number .))) }}
{{- end }}
{{- $sum }}
{{- end }}
{{- end }}

{{/* What crank needs from SIGTERM to its end, in whole seconds. */}}
{{- define "crank.graceNeeded" -}}
{{- $delay := include "crank.settingOr" (dict "root" . "name" "drainDelay" "default" "0s") }}
{{- $stop := include "crank.settingOr" (dict "root" . "name" "stopTimeout" "default" "30s") }}
{{- ceil (addf (float64 (include "crank.seconds" $delay)) (float64 (include "crank.seconds" $stop)) 5.0) | int64 }}
{{- end }}

{{- define "crank.grace" -}}
{{- $given := .Values.terminationGracePeriodSeconds }}
{{- if kindIs "invalid" $given }}{{ include "crank.graceNeeded" . }}{{ else }}{{ int64 $given }}{{ end }}
{{- end }}

{{- define "crank.startSeconds" -}}
{{- include "crank.seconds" (include "crank.settingOr" (dict "root" . "name" "startTimeout" "default" "30s")) }}
{{- end }}

{{/* The startup probe's failureThreshold: it must outlast -start, after which crank ends by itself. */}}
{{- define "crank.startupFailures" -}}
{{- $probe := .Values.probes.startup }}
{{- if $probe.failureThreshold }}{{ int $probe.failureThreshold }}
{{- else }}{{ ceil (divf (addf (float64 (include "crank.startSeconds" .)) 10.0) (float64 $probe.periodSeconds)) | int64 }}
{{- end }}
{{- end }}

{{/* A probe: (dict "root" $ "probe" .Values.probes.readiness "path" "/readyz" "verb" "ready") */}}
{{- define "crank.probe" -}}
{{- if eq .root.Values.probes.type "http" -}}
httpGet:
  path: {{ .path }}
  port: crank
{{- else -}}
exec:
  command: [{{ include "crank.crankctl" .root | quote }}, {{ .verb }}, -timeout, "{{ int .probe.timeoutSeconds }}"]
{{- end }}
periodSeconds: {{ int .probe.periodSeconds }}
timeoutSeconds: {{ int .probe.timeoutSeconds }}
failureThreshold: {{ default .probe.failureThreshold .failureThreshold }}
{{- end }}

{{/* As JSON, the bind of this name, or the first one with TCP: (dict "root" $ "name" "") */}}
{{- define "crank.tcpBind" -}}
{{- $found := dict }}
{{- $name := .name }}
{{- range .root.Values.binds }}
{{- if and (not $found) .port (eq (default "TCP" .protocol) "TCP") (or (not $name) (eq .name $name)) }}
{{- $found = . }}
{{- end }}
{{- end }}
{{- toJson $found }}
{{- end }}

{{/* Whether a Service is made: it needs a port. */}}
{{- define "crank.hasService" -}}
{{- $ports := 0 }}
{{- range .Values.binds }}{{ if .port }}{{ $ports = add1 $ports }}{{ end }}{{ end }}
{{- if and .Values.service.enabled (gt (int $ports) 0) }}true{{ end }}
{{- end }}
