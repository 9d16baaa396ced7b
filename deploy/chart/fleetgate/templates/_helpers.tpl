{{- define "fleetgate.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}

{{/* What pods are selected by; never changes, a DaemonSet's selector cannot. */}}
{{- define "fleetgate.selectorLabels" -}}
app.kubernetes.io/name: fleetgate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "fleetgate.labels" -}}
{{ include "fleetgate.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "fleetgate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "fleetgate.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "fleetgate.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "fleetgate.clusterSecretsNamespace" -}}
{{- .Values.members.secrets.namespace | default .Release.Namespace -}}
{{- end -}}

{{/* "true" if the agent asks this cluster's API server, with the token of its pod. */}}
{{- define "fleetgate.inCluster" -}}
{{- if and (not .Values.manifests.enabled) (not .Values.fleet.kubeconfigSecret) -}}true{{- end -}}
{{- end -}}

{{/* "true" if some node has no pool: its agent reserves ports in /proc/sys, which only a privileged container can write. */}}
{{- define "fleetgate.privileged" -}}
{{- $wanted := .Values.securityContext.privileged -}}
{{- if kindIs "bool" $wanted -}}
{{- $wanted -}}
{{- else -}}
{{- $without := not .Values.node.snat -}}
{{- range $name, $own := .Values.nodes -}}
{{- if and (hasKey $own "snat") (not $own.snat) -}}{{- $without = true -}}{{- end -}}
{{- end -}}
{{- $without -}}
{{- end -}}
{{- end -}}

{{/* Arguments of one node, one on each line. Takes (dict "root" $ "node" <values of the node>). */}}
{{- define "fleetgate.arguments" -}}
{{- $root := .root -}}
{{- $node := .node -}}
{{- if $root.Values.manifests.enabled }}
--manifests=/etc/fleetgate/manifests
{{- else }}
--fleet={{ ternary "/etc/fleetgate/fleet/kubeconfig" "in-cluster" (not (not $root.Values.fleet.kubeconfigSecret)) }}
{{- range $id, $_ := $root.Values.members.kubeconfigs }}
--cluster={{ $id }}=/etc/fleetgate/members/{{ $id }}/kubeconfig
{{- end }}
{{- if $root.Values.members.secrets.enabled }}
--cluster-secrets={{ include "fleetgate.clusterSecretsNamespace" $root }}
{{- end }}
{{- with $root.Values.fleet.dnsSuffix }}
--dns-suffix={{ . }}
{{- end }}
{{- if $root.Values.fleet.leaderElect }}
--leader-elect
{{- end }}
{{- end }}
{{- range $node.interfaces }}
--interface={{ . }}
{{- end }}
{{- range $node.vips }}
--vip={{ . }}
{{- end }}
{{- range $node.snat }}
--snat={{ . }}
{{- end }}
{{- with $node.snatPorts }}
--snat-ports={{ . }}
{{- end }}
--steering={{ $node.steering }}
--xdp={{ $node.xdp }}
{{- with $node.maxFlows }}
--max-flows={{ int64 . }}
{{- end }}
{{- with $node.sampleEvery }}
--sample-every={{ int64 . }}
{{- end }}
{{- range $node.extraArgs }}
{{ . }}
{{- end }}
{{- end -}}

{{/* Values that contradict each other, which the schema cannot say in a sentence. */}}
{{- define "fleetgate.validate" -}}
{{- if and .Values.metrics.podMonitor.enabled (not .Values.metrics.enabled) -}}
{{- fail "metrics.podMonitor.enabled needs metrics.enabled: on 127.0.0.1 Prometheus cannot reach the metrics" -}}
{{- end -}}
{{- if and .Values.manifests.enabled .Values.manifests.hostPath (or .Values.manifests.fleet .Values.manifests.clusters) -}}
{{- fail "manifests.hostPath and manifests.fleet or manifests.clusters: give one of them" -}}
{{- end -}}
{{- if and .Values.manifests.enabled (not .Values.manifests.hostPath) (not .Values.manifests.fleet) -}}
{{- fail "manifests.enabled needs manifests.hostPath, or texts in manifests.fleet" -}}
{{- end -}}
{{- end -}}
