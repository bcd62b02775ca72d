{{- define "sheafdb.name" -}}{{ printf "%s-sheafdb" .Release.Name | trunc 63 | trimSuffix "-" }}{{- end }}
{{- define "sheafdb.selector" -}}
app.kubernetes.io/name: sheafdb
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "sheafdb.labels" -}}
{{ include "sheafdb.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
