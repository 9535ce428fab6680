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

{{/* Names of aggregators' objects: 63 characters at most, with the `-test` of a pod. */}}
{{- define "csi-gateway.aggregator" -}}
{{- printf "%s-aggregator" (include "csi-gateway.fullname" . | trunc 47 | trimSuffix "-") -}}
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

{{/* Agents' or aggregators'. */}}
{{- define "csi-gateway.componentName" -}}
{{- if eq .component "aggregator" }}{{ include "csi-gateway.aggregator" .root }}{{ else }}{{ include "csi-gateway.fullname" .root }}-agent{{ end -}}
{{- end -}}

{{/* The service account of agents or aggregators. */}}
{{- define "csi-gateway.serviceAccountName" -}}
{{- with (index .root.Values .component).serviceAccount -}}
{{- if .create -}}
{{- default (include "csi-gateway.componentName" $) .name -}}
{{- else -}}
{{- default "default" .name -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What scrapes, for a PodMonitor and a ServiceMonitor: an agent is known by its node, whatever pod it is, an aggregator by its pod; alerts ask
for the job. */}}
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
    - sourceLabels: [__meta_kubernetes_pod_{{ ternary "node_name" "name" (eq .component "agent") }}]
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

{{/* What there is: agents, and aggregators where they are enabled. */}}
{{- define "csi-gateway.components" -}}
agent{{ if .Values.aggregator.enabled }} aggregator{{ end }}
{{- end -}}

{{/* What agents and aggregators have in common. */}}
{{- define "csi-gateway.sharedArgs" -}}
{{- with .Values.tls }}
{{- if .existingSecret }}
- --tls-cert-file=/etc/csi-gateway/tls/tls.crt
- --tls-key-file=/etc/csi-gateway/tls/tls.key
{{- if eq .clientAuth "optional" }}
- --tls-client-ca-file=/etc/csi-gateway/tls/ca.crt
- --tls-client-auth=optional
{{- end }}
{{- end }}
{{- end }}
- --v={{ .Values.logLevel }}
- --logging-format={{ .Values.loggingFormat }}
{{- with .Values.acl }}
{{- if .existingSecret }}
- --acl-enabled
- --acl-tokens-file=/etc/csi-gateway/acl/tokens.json
- --acl-metrics={{ .metrics }}
{{- if .policiesConfigMap }}
- --acl-policy-dir=/etc/csi-gateway/policies
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A member's flags; nothing where there is no fleet. */}}
{{- define "csi-gateway.memberArgs" -}}
{{- with .root.Values.fleet }}
{{- if .etcdServers }}
- --role={{ $.role }}
- --etcd-servers={{ join "," .etcdServers }}
- --etcd-prefix={{ .etcdPrefix }}
- --host-ttl={{ .hostTTL }}
{{- if .etcdTlsSecret }}
- --etcd-cafile=/etc/csi-gateway/etcd/ca.crt
{{- if .etcdClientCertificate }}
- --etcd-certfile=/etc/csi-gateway/etcd/tls.crt
- --etcd-keyfile=/etc/csi-gateway/etcd/tls.key
{{- end }}
{{- end }}
{{- if .etcdUsername }}
- --etcd-username={{ .etcdUsername }}
- --etcd-password-file=/etc/csi-gateway/etcd-password/password
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What cannot be meant. */}}
{{- define "csi-gateway.check" -}}
{{- with .Values.fleet }}
{{- if not .etcdServers }}
{{- if $.Values.aggregator.enabled }}{{ fail "aggregator.enabled needs fleet.etcdServers: aggregators serve what agents have told an etcd" }}{{ end }}
{{- if or .etcdTlsSecret .etcdUsername .etcdPasswordSecret }}{{ fail "fleet.etcdTlsSecret, etcdUsername and etcdPasswordSecret need fleet.etcdServers" }}{{ end }}
{{- end }}
{{- if and .etcdTlsSecret (not (regexMatch "(^|,)https://" (join "," .etcdServers))) }}{{ fail "fleet.etcdTlsSecret does nothing where no server of fleet.etcdServers is https://" }}{{ end }}
{{- if and .etcdClientCertificate (not .etcdTlsSecret) }}{{ fail "fleet.etcdClientCertificate needs fleet.etcdTlsSecret, which has the certificate" }}{{ end }}
{{- if ne (empty .etcdUsername) (empty .etcdPasswordSecret) }}{{ fail "fleet.etcdUsername and fleet.etcdPasswordSecret go together" }}{{ end }}
{{- end }}
{{- range $flag := concat .Values.agent.extraArgs .Values.aggregator.extraArgs }}
{{- if regexMatch "^--?(role|etcd-[a-z-]+|host-ttl)(=|$)" $flag }}{{ fail (printf "extraArgs: %s: a fleet is set up in `fleet`, for agents and aggregators alike" $flag) }}{{ end }}
{{- end }}
{{- end -}}

{{/* The configuration file of aggregators. */}}
{{- define "csi-gateway.aggregatorConfig" -}}
{{- default .Values.config .Values.aggregator.config -}}
{{- end -}}

{{/* Files that agents and aggregators have in common. */}}
{{- define "csi-gateway.sharedMounts" -}}
{{- if .Values.tls.existingSecret }}
- name: tls
  mountPath: /etc/csi-gateway/tls
  readOnly: true
{{- end }}
{{- if .Values.acl.existingSecret }}
- name: acl
  mountPath: /etc/csi-gateway/acl
  readOnly: true
{{- if .Values.acl.policiesConfigMap }}
- name: policies
  mountPath: /etc/csi-gateway/policies
  readOnly: true
{{- end }}
{{- end }}
{{- if .Values.fleet.etcdTlsSecret }}
- name: etcd
  mountPath: /etc/csi-gateway/etcd
  readOnly: true
{{- end }}
{{- if .Values.fleet.etcdPasswordSecret }}
- name: etcd-password
  mountPath: /etc/csi-gateway/etcd-password
  readOnly: true
{{- end }}
{{- end -}}

{{/* Their volumes; Secrets with a mode, for aggregators are not root and read them as a group. */}}
{{- define "csi-gateway.sharedVolumes" -}}
{{- $mode := .mode -}}
{{- $root := .root -}}
{{- with $root.Values -}}
{{- with .tls.existingSecret }}
- name: tls
  secret:
    secretName: {{ . }}
    defaultMode: {{ $mode }}
{{- end }}
{{- if .acl.existingSecret }}
- name: acl
  secret:
    secretName: {{ .acl.existingSecret }}
    defaultMode: {{ $mode }}
{{- with .acl.policiesConfigMap }}
- name: policies
  configMap:
    name: {{ . }}
{{- end }}
{{- end }}
{{- with .fleet.etcdTlsSecret }}
- name: etcd
  secret:
    secretName: {{ . }}
    defaultMode: {{ $mode }}
{{- end }}
{{- with .fleet.etcdPasswordSecret }}
- name: etcd-password
  secret:
    secretName: {{ . }}
    defaultMode: {{ $mode }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Where a member may go: to its etcd, whose name may have to be looked up; and where else the values say. */}}
{{- define "csi-gateway.egress" -}}
{{- $ports := list -}}
{{- range .Values.fleet.etcdServers -}}
{{- $ports = append $ports (regexReplaceAll "^.*?(:([0-9]+))?/?$" . "${2}" | default "2379" | int) -}}
{{- end -}}
{{- if $ports }}
- ports:
    {{- range uniq $ports }}
    - port: {{ . }}
      protocol: TCP
    {{- end }}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{- end }}
{{- with .Values.networkPolicy.egress }}
{{ toYaml . }}
{{- end }}
{{- end -}}
