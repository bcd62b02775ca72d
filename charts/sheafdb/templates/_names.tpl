{{- define "sheafdb.name" -}}{{ printf "%s-sheafdb" .Release.Name | trunc 50 | trimSuffix "-" }}{{- end }}
{{- define "sheafdb.selector" -}}
app.kubernetes.io/name: sheafdb
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "sheafdb.labels" -}}
{{ include "sheafdb.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
{{- define "sheafdb.image" -}}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{- end }}

{{- define "sheafdb.probes" -}}
startupProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 2
  failureThreshold: 150
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 5
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 10
  failureThreshold: 6
{{- end }}

{{- /* What the "restricted" Pod Security Standard of Kubernetes asks for: of the pod, and of its container. */}}
{{- define "sheafdb.podSecurity" -}}
{runAsNonRoot: true, runAsUser: 10001, fsGroup: 10001, seccompProfile: {type: RuntimeDefault}}
{{- end }}
{{- define "sheafdb.containerSecurity" -}}
{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
{{- end }}

{{- define "sheafdb.scheduling" -}}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
