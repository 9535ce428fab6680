{{- define "csi-gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "csi-gateway.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 55 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "csi-gateway.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 55 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 55 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What never changes: a DaemonSet's selector cannot. */}}
{{- define "csi-gateway.selectorLabels" -}}
app.kubernetes.io/name: {{ include "csi-gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "csi-gateway.labels" -}}
{{ include "csi-gateway.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: csi-gateway
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "csi-gateway.image" -}}
{{- with .Values.image -}}
{{- $name := .repository -}}
{{- if .registry -}}{{- $name = printf "%s/%s" (trimSuffix "/" .registry) .repository -}}{{- end -}}
{{- if .digest -}}
{{- printf "%s@%s" $name .digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "csi-gateway.agentServiceAccountName" -}}
{{- with .Values.agent.serviceAccount -}}
{{- if .create -}}
{{- default (printf "%s-agent" (include "csi-gateway.fullname" $)) .name -}}
{{- else -}}
{{- default "default" .name -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What scrapes, for a PodMonitor and a ServiceMonitor: an agent is known by its node, whatever pod it is; alerts ask for the job. */}}
{{- define "csi-gateway.scrape" -}}
{{- $monitor := .monitor -}}
- port: http
  path: /metrics
  interval: {{ $monitor.interval }}
  {{- if .root.Values.tls.existingSecret }}
  scheme: https
  {{- with $monitor.tlsConfig }}
  tlsConfig:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- with $monitor.tokenSecret }}
  authorization:
    credentials:
      name: {{ . }}
      key: token
  {{- end }}
  relabelings:
    - sourceLabels: [__meta_kubernetes_pod_node_name]
      targetLabel: instance
    - targetLabel: job
      replacement: csi-gateway
{{- end -}}

{{/* A probe as it is configured; over TLS where that is all that is spoken. */}}
{{- define "csi-gateway.probe" -}}
{{- $probe := deepCopy .probe -}}
{{- if and .root.Values.tls.existingSecret $probe.httpGet -}}
{{- $_ := set $probe.httpGet "scheme" (default "HTTPS" $probe.httpGet.scheme) -}}
{{- end -}}
{{- toYaml $probe -}}
{{- end -}}
