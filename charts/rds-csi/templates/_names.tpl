{{/* The start of every name. A release called rds-csi, or my-rds-csi, does not say it twice. */}}
{{- define "rds-csi.name" -}}
{{- if contains "rds-csi" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ .Release.Name | trunc 32 | trimSuffix "-" }}-rds-csi{{ end }}
{{- end }}

{{/* What selects the pods of a part; it never changes, a Deployment could not be upgraded otherwise. Takes (list . part). */}}
{{- define "rds-csi.selector" -}}
app.kubernetes.io/name: rds-csi
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* The labels of every object. Takes (list . part). */}}
{{- define "rds-csi.labels" -}}
{{ include "rds-csi.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ (index . 0).Chart.Name }}-{{ (index . 0).Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "rds-csi.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The configuration file, with the key files of the Secret where none are named. */}}
{{- define "rds-csi.config" -}}
{{- $config := deepCopy .Values.config }}
{{- range $config.rds }}
{{- if not (or .privateKeyFile .passwordFile) }}{{ $_ := set . "privateKeyFile" "/etc/rds-csi-secret/id_ed25519" }}{{ end }}
{{- if not (or .knownHostsFile .hostKeyFingerprint) }}{{ $_ := set . "knownHostsFile" "/etc/rds-csi-secret/known_hosts" }}{{ end }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* The nodes' file: without the RDSs, whose addresses come with each request. So a new RDS restarts no node plugin either. */}}
{{- define "rds-csi.nodeConfig" -}}
{{- toYaml (omit .Values.config "rds" "reconcile" "metrics") }}
{{- end }}

{{/* Of a container that needs nothing of its host. */}}
{{- define "rds-csi.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* How fast a sidecar of the controller asks, and asks again. */}}
{{- define "rds-csi.pace" -}}
- --kube-api-qps={{ .Values.sidecars.pace.requestsPerSecond }}
- --kube-api-burst={{ mul 2 .Values.sidecars.pace.requestsPerSecond }}
- --retry-interval-max={{ .Values.sidecars.pace.longestRetry }}
{{- end }}

{{- define "rds-csi.probes" -}}
# Either answers within 2 s, also while an RDS or the API server is silent.
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  timeoutSeconds: 3
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  timeoutSeconds: 3
{{- end }}
