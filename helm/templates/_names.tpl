{{/* All names start with the release's, so that two installations can share a namespace. */}}
{{- define "cde.name" -}}
{{- if contains "cde" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-cde" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{/* Names of cluster-wide objects also contain the namespace. */}}
{{- define "cde.clusterName" -}}
{{ printf "%s-%s" .Release.Namespace (include "cde.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "cde.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/name: cde
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* The labels of selectors, with the component: (dict "root" $ "component" "server") */}}
{{- define "cde.selector" -}}
app.kubernetes.io/name: cde
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "cde.image" -}}
{{ printf "%s%s:%s" .root.Values.image.registry .name (.root.Values.image.tag | default .root.Chart.AppVersion) }}
{{- end }}

{{- define "cde.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "cde.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "cde.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{- define "cde.secretName" -}}
{{ .Values.secretKey.existingSecret | default (printf "%s-secret-key" (include "cde.name" .)) }}
{{- end }}

{{/* Certificate authorities besides those that Node knows. */}}
{{- define "cde.caMount" -}}
{{- if .Values.caBundle.configMap -}}
- { name: ca, mountPath: /etc/cde/ca, readOnly: true }
{{- end }}
{{- end }}
{{- define "cde.caVolume" -}}
{{- with .Values.caBundle -}}
{{- if .configMap -}}
- name: ca
  configMap: { name: {{ .configMap }}, items: [{ key: {{ .key | quote }}, path: ca.crt }] }
{{- end }}
{{- end }}
{{- end }}
{{- define "cde.caEnv" -}}
{{- if .Values.caBundle.configMap -}}
- { name: NODE_EXTRA_CA_CERTS, value: /etc/cde/ca/ca.crt }
{{- end }}
{{- end }}

{{/* The sysctls that noded sets, and those it never sets. A test compares them with noded/allowed.ts. */}}
{{- define "cde.sysctlsNever" -}}
^(kernel\.(core_pattern|core_pipe_limit|modprobe|hotplug|poweroff_cmd|usermodehelper\..*|sysrq|modules_disabled|kexec_load_disabled|unprivileged_bpf_disabled|yama\.ptrace_scope|ns_last_pid|random\..*)|fs\.binfmt_misc\..*|vm\.(drop_caches|compact_memory)|net\.ipv[46]\.route\.flush)$
{{- end }}
{{- define "cde.sysctlsOfPods" -}}
^(kernel\.(msg.*|sem|shm.*|auto_msgmni)|fs\.mqueue\..*)$
{{- end }}
{{- define "cde.sysctlsKept" -}}
^(fs\.(aio-max-nr|epoll\..*|file-max|inotify\..*|nr_open|pipe-max-size|pipe-user-pages-(hard|soft))|kernel\.(keys\..*|numa_balancing|perf_event_(max_sample_rate|mlock_kb|paranoid)|pid_max|sched_autogroup_enabled|threads-max|timer_migration)|net\.(core\..*|ipv4\.(tcp|udp)_.*|netfilter\.nf_conntrack_.*)|vm\.(dirty_.*|max_map_count|min_free_kbytes|nr_hugepages|overcommit_.*|swappiness|vfs_cache_pressure|watermark_scale_factor|zone_reclaim_mode))$
{{- end }}

{{/* The rules that the schema cannot express. */}}
{{- define "cde.check" -}}
{{- if not .Values.accessUrl }}{{ fail "accessUrl is missing: the URL at which users reach the server, for example https://cde.example.com" }}{{ end -}}
{{- $external := .Values.database.external.secret -}}
{{- $embedded := .Values.database.embedded.enabled -}}
{{- if and $external $embedded }}{{ fail "database.external.secret and database.embedded.enabled are mutually exclusive: choose one" }}{{ end -}}
{{- if not (or $external $embedded) }}{{ fail "There is no database: set database.external.secret to a Secret with DATABASE_URL, or database.embedded.enabled=true for a small installation" }}{{ end -}}
{{- range .Values.satellites -}}
{{- if and .udp .udp.enabled (not .udp.address) }}{{ fail (printf "satellites: %s has udp.enabled but no udp.address: the HOST:PORT at which clients reach its UDP port" .name) }}{{ end -}}
{{- end -}}
{{- if and .Values.gateway.enabled (not .Values.gateway.parentRefs) }}{{ fail "gateway.parentRefs is missing: the Gateways of the HTTPRoute" }}{{ end -}}
{{- if and $embedded (gt (int .Values.server.replicas) 1) }}{{ fail "The embedded database supports only one replica: set server.replicas=1, or use database.external" }}{{ end -}}
{{- $names := list -}}
{{- range .Values.satellites -}}
{{- if has .name $names }}{{ fail (printf "satellites: two have the name %s" .name) }}{{ end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- if .Values.noded.enabled -}}
{{- range $profile, $_ := .Values.noded.profiles -}}
{{- if and .transparentHugePages (not $.Values.noded.hugePages) }}{{ fail (printf "noded.profiles.%s: transparentHugePages requires noded.hugePages=true, which mounts the node's folder" $profile) }}{{ end -}}
{{- range $sysctl, $_ := .sysctls -}}
{{- if regexMatch (include "cde.sysctlsNever" $) $sysctl }}{{ fail (printf "noded.profiles.%s: noded never sets %s, even if noded.allow contains it" $profile $sysctl) }}{{ end -}}
{{- if regexMatch (include "cde.sysctlsOfPods" $) $sysctl }}{{ fail (printf "noded.profiles.%s: each pod has its own %s, which the node's value does not affect" $profile $sysctl) }}{{ end -}}
{{- $kept := regexMatch (include "cde.sysctlsKept" $) $sysctl -}}
{{- range $.Values.noded.allow -}}
{{- if or (eq . $sysctl) (and (hasSuffix "*" .) (hasPrefix (trimSuffix "*" .) $sysctl)) }}{{ $kept = true }}{{ end -}}
{{- end -}}
{{- if not $kept }}{{ fail (printf "noded.profiles.%s: %s is not among the sysctls that noded sets by default; to set it, add it to noded.allow" $profile $sysctl) }}{{ end -}}
{{- if and (hasPrefix "net." $sysctl) (not $.Values.noded.hostNetwork) }}{{ fail (printf "noded.profiles.%s: %s requires noded.hostNetwork=true, because each network namespace has its own" $profile $sysctl) }}{{ end -}}
{{- if and (eq "kernel.pid_max" $sysctl) (not $.Values.noded.hostPID) }}{{ fail (printf "noded.profiles.%s: kernel.pid_max requires noded.hostPID=true, because each process namespace has its own" $profile) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The environment of the server, and of the job that checks it: (dict "root" $ "optional" whether Secrets may be missing) */}}
{{- define "cde.serverEnv" -}}
{{- $root := .root -}}
- { name: CDE_LISTEN, value: "0.0.0.0:7080" }
- { name: CDE_ACCESS_URL, value: {{ $root.Values.accessUrl | quote }} }
{{- with $root.Values.ports.host }}
- { name: CDE_PORT_HOST, value: {{ . | quote }} }
{{- end }}
- name: POD_IP
  valueFrom: { fieldRef: { fieldPath: status.podIP } }
# Agents connect to each replica, clients to the access URL.
- { name: CDE_REPLICA_URL, value: "http://$(POD_IP):7080" }
- { name: CDE_DATA_DIR, value: /var/lib/cde }
- name: CDE_SECRET_KEY
  valueFrom:
    secretKeyRef: { name: {{ include "cde.secretName" $root }}, key: {{ $root.Values.secretKey.key }}{{ if .optional }}, optional: true{{ end }} }
{{- if not $root.Values.database.embedded.enabled }}
- name: DATABASE_URL
  valueFrom:
    secretKeyRef: { name: {{ $root.Values.database.external.secret }}, key: {{ $root.Values.database.external.key }}{{ if .optional }}, optional: true{{ end }} }
{{- end }}
{{- if $root.Values.workspaces.inCluster }}
- { name: CDE_CLUSTER, value: in-cluster }
{{- with $root.Values.workspaces.publicEndpoint }}
- { name: CDE_CLUSTER_PUBLIC_ENDPOINT, value: {{ . | quote }} }
{{- end }}
{{- end }}
- { name: CDE_AGENT_IMAGE, value: {{ include "cde.image" (dict "root" $root "name" $root.Values.workspaces.image) | quote }} }
{{- with include "cde.caEnv" $root }}
{{ . }}
- { name: CDE_AGENT_CA, value: /etc/cde/ca/ca.crt }
{{- end }}
{{- range $key, $value := $root.Values.server.settings }}
- { name: {{ $key }}, value: {{ $value | quote }} }
{{- end }}
{{- with $root.Values.server.env }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}
