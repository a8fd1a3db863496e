{{/* The release's name before everything, so that two installations in one namespace do not meet. */}}
{{- define "cde.name" -}}
{{- if contains "cde" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-cde" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{/* Cluster-wide objects carry the namespace too. */}}
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

{{/* What selectors use, with the component: (dict "root" $ "component" "server") */}}
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

{{/* What the schema cannot say. */}}
{{- define "cde.check" -}}
{{- if not .Values.accessUrl }}{{ fail "accessUrl is missing: the URL that users reach the server by, for example https://cde.example.com" }}{{ end -}}
{{- $external := .Values.database.external.secret -}}
{{- $embedded := .Values.database.embedded.enabled -}}
{{- if and $external $embedded }}{{ fail "database.external.secret and database.embedded.enabled exclude each other: choose one" }}{{ end -}}
{{- if not (or $external $embedded) }}{{ fail "There is no database: set database.external.secret to a Secret with DATABASE_URL, or database.embedded.enabled=true for a small installation" }}{{ end -}}
{{- if and $embedded (gt (int .Values.server.replicas) 1) }}{{ fail "The embedded database serves one replica: set server.replicas=1, or use database.external" }}{{ end -}}
{{- $names := list -}}
{{- range .Values.satellites -}}
{{- if has .name $names }}{{ fail (printf "satellites: there are two of the name %s" .name) }}{{ end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- if .Values.noded.enabled -}}
{{- range $profile, $_ := .Values.noded.profiles -}}
{{- range $sysctl, $_ := .sysctls -}}
{{- if and (hasPrefix "net." $sysctl) (not $.Values.noded.hostNetwork) }}{{ fail (printf "noded.profiles.%s: %s takes noded.hostNetwork=true, since each network namespace has its own" $profile $sysctl) }}{{ end -}}
{{- if and (eq "kernel.pid_max" $sysctl) (not $.Values.noded.hostPID) }}{{ fail (printf "noded.profiles.%s: kernel.pid_max takes noded.hostPID=true, since each process namespace has its own" $profile) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
