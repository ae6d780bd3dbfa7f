{{/*
What a schema cannot compute. All that is wrong is said at once. Each message names the value, what
is wrong with it, and what to do.
*/}}
{{- define "crank.refuse" -}}
{{- $errors := concat
      (include "crank.refuse.image" . | fromJsonArray)
      (include "crank.refuse.binds" . | fromJsonArray)
      (include "crank.refuse.time" . | fromJsonArray)
      (include "crank.refuse.probes" . | fromJsonArray)
      (include "crank.refuse.env" . | fromJsonArray)
      (include "crank.refuse.updater" . | fromJsonArray)
      (include "crank.refuse.scale" . | fromJsonArray)
      (include "crank.refuse.routes" . | fromJsonArray) }}
{{- if $errors }}
{{- fail (printf "\n  - %s\n" (join "\n  - " $errors)) }}
{{- end }}
{{- end }}

{{- define "crank.refuse.image" -}}
{{- $errors := list }}
{{- with .Values.image }}
{{- if not .repository }}
{{- $errors = append $errors "image.repository is empty: it must name the app's image" }}
{{- else if not (or .tag .digest) }}
{{- $errors = append $errors "image.tag and image.digest are empty: one of them must say which version of the app runs" }}
{{- end }}
{{- end }}
{{- if and (eq .Values.mode "inject") (not .Values.command) }}
{{- $errors = append $errors "mode inject needs command: it takes the place of the image's ENTRYPOINT and CMD, which the chart cannot know" }}
{{- end }}
{{- toJson $errors }}
{{- end }}

{{- define "crank.refuse.binds" -}}
{{- $errors := list }}
{{- $names := dict }}{{ $ports := dict }}{{ $servicePorts := dict }}
{{- $http := include "crank.httpPort" . }}
{{- range .Values.binds }}
{{- $errors = concat $errors (include "crank.refuse.bind" . | fromJsonArray) }}
{{- if hasKey $names .name }}
{{- $errors = append $errors (printf "binds: the name %q is there twice" .name) }}
{{- end }}
{{- $_ := set $names .name true }}
{{- if .port }}
{{- $protocol := default "TCP" .protocol }}
{{- $port := printf "%s %d" $protocol (int .port) }}
{{- $servicePort := printf "%s %d" $protocol (int (default .port .servicePort)) }}
{{- if hasKey $ports $port }}
{{- $errors = append $errors (printf "binds: %s is there twice, as %s and as %s" $port (get $ports $port) .name) }}
{{- else if hasKey $servicePorts $servicePort }}
{{- $errors = append $errors (printf "binds: the Service would have %s twice, for %s and for %s: give one of them a servicePort of its own" $servicePort (get $servicePorts $servicePort) .name) }}
{{- end }}
{{- $_ := set $ports $port .name }}
{{- $_ := set $servicePorts $servicePort .name }}
{{- if and $http (eq $port (printf "TCP %s" $http)) }}
{{- $errors = append $errors (printf "bind %s: port %s is crank.http.port, for probes and metrics: choose another for one of them" .name $http) }}
{{- end }}
{{- if and $http (eq .name "crank") }}
{{- $errors = append $errors "binds: crank is the name of crank.http.port: choose another" }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.crank.settings.stdinSocket (not .Values.binds) }}
{{- $errors = append $errors "crank.settings.stdinSocket needs a bind: there is no socket to pass as descriptor 0" }}
{{- end }}
{{- toJson $errors }}
{{- end }}

{{- define "crank.refuse.bind" -}}
{{- $errors := list }}
{{- if and .uri (or .port .host .protocol .servicePort) }}
{{- $errors = append $errors (printf "bind %s has a uri, which says all: leave out port, host, protocol and servicePort" .name) }}
{{- else if not (or .uri .port) }}
{{- $errors = append $errors (printf "bind %s has no port: give it one, or the uri of a unix socket" .name) }}
{{- end }}
{{- if contains "," (printf "%s%s" (default "" .uri) (default "" .options)) }}
{{- $errors = append $errors (printf "bind %s has a comma, which separates sockets in CRANK_BIND" .name) }}
{{- end }}
{{- if and .port (not (and (regexMatch "^[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$" .name) (regexMatch "[a-z]" .name) (not (contains "--" .name)))) }}
{{- $errors = append $errors (printf "bind %s: the name of a port has 1 to 15 small letters, digits and single dashes, a letter among them" .name) }}
{{- end }}
{{- toJson $errors }}
{{- end }}

{{- define "crank.refuse.time" -}}
{{- $errors := list }}
{{- $needed := include "crank.graceNeeded" . | int64 }}
{{- $grace := include "crank.grace" . | int64 }}
{{- if lt $grace $needed }}
{{- $errors = append $errors (printf "terminationGracePeriodSeconds is %d, and crank needs %d: crank.settings.drainDelay (%s) + stopTimeout (%s) + 5; leave it empty, or make one of the others smaller"
      $grace $needed
      (include "crank.settingOr" (dict "root" . "name" "drainDelay" "default" "0s"))
      (include "crank.settingOr" (dict "root" . "name" "stopTimeout" "default" "30s"))) }}
{{- end }}
{{- with .Values.probes.startup }}
{{- $budget := mul (include "crank.startupFailures" $ | int64) (int64 .periodSeconds) }}
{{- $start := include "crank.startSeconds" $ | float64 }}
{{- if and .enabled (lt (float64 $budget) $start) }}
{{- $errors = append $errors (printf "probes.startup gives the app %d s (periodSeconds × failureThreshold), and crank.settings.startTimeout is %v s: the kubelet would kill the container before crank can say why the app did not start; leave failureThreshold empty" $budget $start) }}
{{- end }}
{{- end }}
{{- toJson $errors }}
{{- end }}

{{- define "crank.refuse.probes" -}}
{{- $errors := list }}
{{- $http := include "crank.httpPort" . }}
{{- $ctl := include "crank.settingOr" (dict "root" . "name" "ctl" "default" "on") }}
{{- with .Values.probes }}
{{- if or .startup.enabled .readiness.enabled .liveness.enabled }}
{{- if and (eq .type "http") (not $http) }}
{{- $errors = append $errors "probes.type is http and crank.http.port is off: set probes.type to exec, or give a port" }}
{{- end }}
{{- if and (eq .type "exec") (eq $ctl "off") }}
{{- $errors = append $errors "probes.type is exec and crank.settings.ctl is off: crankctl asks by the control socket; set probes.type to http, or leave ctl out" }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.podMonitor.enabled (not $http) }}
{{- $errors = append $errors "podMonitor.enabled needs crank.http.port, which is off" }}
{{- end }}
{{- toJson $errors }}
{{- end }}

{{- define "crank.refuse.env" -}}
{{- $errors := list }}
{{- range .Values.env }}
{{- if and (hasPrefix "CRANK_" .name) (ne .name "CRANK_CTL_TOKEN_FILE") }}
{{- $errors = append $errors (printf "env: %s is crank's own: bind and http have values of their own, the others belong into crank.settings" .name) }}
{{- end }}
{{- end }}
{{- toJson $errors }}
{{- end }}

{{- define "crank.refuse.updater" -}}
{{- $errors := list }}
{{- if .Values.updater.enabled }}
{{- with .Values.updater.image }}
{{- if not .repository }}
{{- $errors = append $errors "updater.image.repository is empty: it must name an image" }}
{{- else if not (or .tag .digest) }}
{{- $errors = append $errors "updater.image.tag and digest are empty: one of them must say which version runs" }}
{{- end }}
{{- end }}
{{- if not .Values.runtimeDir.enabled }}
{{- $errors = append $errors "updater.enabled needs runtimeDir.enabled: that is the volume through which it reaches crank" }}
{{- end }}
{{- if or .Values.crank.settings.ctlReadonly (hasKey .Values.crank.settings "ctl") }}
{{- $errors = append $errors "updater.enabled needs the control socket where it is by default: leave out crank.settings.ctl and ctlReadonly" }}
{{- end }}
{{- end }}
{{- toJson $errors }}
{{- end }}

{{- define "crank.refuse.scale" -}}
{{- $errors := list }}
{{- with .Values.autoscaling }}
{{- if .enabled }}
{{- if ne (int $.Values.replicas) 1 }}
{{- $errors = append $errors (printf "replicas is %d and autoscaling is enabled, which decides that: leave replicas out, and set autoscaling.minReplicas" (int $.Values.replicas)) }}
{{- end }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
{{- $errors = append $errors (printf "autoscaling.minReplicas is %d and maxReplicas %d" (int .minReplicas) (int .maxReplicas)) }}
{{- end }}
{{- if not (or .targetCPUUtilizationPercentage .targetMemoryUtilizationPercentage .metrics) }}
{{- $errors = append $errors "autoscaling is enabled and looks at nothing: set a target or metrics" }}
{{- end }}
{{- $requests := default dict $.Values.resources.requests }}
{{- if and .targetCPUUtilizationPercentage (not $requests.cpu) }}
{{- $errors = append $errors "autoscaling.targetCPUUtilizationPercentage is a share of resources.requests.cpu, which is not set" }}
{{- end }}
{{- if and .targetMemoryUtilizationPercentage (not $requests.memory) }}
{{- $errors = append $errors "autoscaling.targetMemoryUtilizationPercentage is a share of resources.requests.memory, which is not set" }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.podDisruptionBudget }}
{{- if not (or (kindIs "invalid" .minAvailable) (kindIs "invalid" .maxUnavailable)) }}
{{- $errors = append $errors "podDisruptionBudget has minAvailable and maxUnavailable: Kubernetes takes one of them" }}
{{- end }}
{{- end }}
{{- toJson $errors }}
{{- end }}

{{- define "crank.refuse.routes" -}}
{{- $errors := list }}
{{- range $kind, $route := dict "ingress" .Values.ingress "httpRoute" .Values.httpRoute }}
{{- if $route.enabled }}
{{- if not (include "crank.hasService" $) }}
{{- $errors = append $errors (printf "%s.enabled needs the Service: set service.enabled, and give a bind a port" $kind) }}
{{- else if not (include "crank.tcpBind" (dict "root" $ "name" $route.bind) | fromJson) }}
{{- $errors = append $errors (printf "%s.enabled needs a bind with TCP%s" $kind (empty $route.bind | ternary "" (printf "; %s.bind says %s" $kind $route.bind))) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- $errors = append $errors "ingress.enabled needs ingress.hosts" }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- $errors = append $errors "httpRoute.enabled needs httpRoute.parentRefs: the gateways" }}
{{- end }}
{{- toJson $errors }}
{{- end }}
