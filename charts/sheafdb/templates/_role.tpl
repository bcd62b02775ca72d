{{/* What the workloads of all roles share. Called with (dict "root" $ "role" "proxy"). */}}

{{- define "sheafdb.role.name" -}}{{ include "sheafdb.name" .root }}-{{ .role }}{{- end }}

{{- define "sheafdb.role.selector" -}}
{{ include "sheafdb.selector" .root }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{- define "sheafdb.role.labels" -}}
{{ include "sheafdb.labels" .root }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{- define "sheafdb.role.pod" -}}
{{- $values := index .root.Values .role }}
metadata:
  labels: {{- include "sheafdb.role.labels" . | nindent 4 }}
  annotations:
    checksum/settings: {{ include "sheafdb.settings" .root | sha256sum }}
spec:
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  serviceAccountName: {{ .root.Values.serviceAccountName }}
  # Leaves the ring, finishes what runs, hands over.
  terminationGracePeriodSeconds: 60
  securityContext: {{ include "sheafdb.podSecurity" .root }}
  {{- with include "sheafdb.scheduling" .root }}
  {{- . | nindent 2 }}
  {{- end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{- include "sheafdb.role.selector" . | nindent 10 }}
  containers:
    - name: {{ .role }}
      image: {{ include "sheafdb.image" .root | quote }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args: [{{ .role }}, --config, /etc/sheafdb/sheafdb.yaml]
      env:
        - name: SHEAFDB_NODE__ID
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        - name: SHEAFDB_NODE__ADVERTISE
          valueFrom: {fieldRef: {fieldPath: status.podIP}}
        {{- include "sheafdb.role.secrets" .root | nindent 8 }}
      ports:
        {{- if eq .role "proxy" }}
        - {name: grpc, containerPort: 19530}
        {{- else }}
        - {name: node, containerPort: 21530}
        {{- end }}
        - {name: metrics, containerPort: 9091}
      {{- include "sheafdb.probes" .root | nindent 6 }}
      {{- if eq .role "proxy" }}
      # The Service must have stopped sending clients here before the port closes: one that is refused fails.
      lifecycle:
        preStop: {exec: {command: [sleep, "5"]}}
      {{- end }}
      resources: {{- toYaml $values.resources | nindent 8 }}
      securityContext: {{ include "sheafdb.containerSecurity" .root }}
      volumeMounts:
        - {name: settings, mountPath: /etc/sheafdb/sheafdb.yaml, subPath: sheafdb.yaml}
        - {name: work, mountPath: /data}
        - {name: tmp, mountPath: /tmp}
        - {name: cache, mountPath: /cache}
        {{- if .root.Values.tlsSecretName }}
        - {name: tls, mountPath: /etc/sheafdb/tls, readOnly: true}
        {{- end }}
  volumes:
    - name: settings
      configMap: {name: {{ include "sheafdb.name" .root }}}
    - name: work
      emptyDir: {}
    - name: tmp
      emptyDir: {}
    {{- if ne .role "querynode" }}
    - name: cache
      emptyDir: {}
    {{- end }}
    {{- with .root.Values.tlsSecretName }}
    - name: tls
      secret: {secretName: {{ . }}}
    {{- end }}
{{- end }}

{{- define "sheafdb.role.secrets" -}}
{{- range $section, $keys := dict "kafka" (list "user" "password") "etcd" (list "user" "password") "s3" (list "access_key" "secret_key") }}
{{- with (index $.Values $section).secretName }}
{{- $secret := . }}
{{- range $key := $keys }}
- name: SHEAFDB_{{ upper $section }}__{{ upper $key }}
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ $key }}}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
