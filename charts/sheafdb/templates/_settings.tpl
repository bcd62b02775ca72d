{{/* The content of sheafdb.yaml. What is in .Values.settings wins over what the chart says. */}}
{{- define "sheafdb.settings" -}}
{{- if eq .Values.mode "cluster" }}
{{- $cluster := dict
  "server" (dict "host" "0.0.0.0" "port" 19530 "metrics_port" 9091)
  "node" (dict "host" "0.0.0.0" "port" 21530)
  "kafka" (dict
    "servers" (required "kafka.servers must name your Kafka" .Values.kafka.servers)
    "topic" .Values.kafka.topic
    "replication_factor" (int .Values.kafka.replicationFactor)
    "min_insync_replicas" (int .Values.kafka.minInsyncReplicas))
  "etcd" (dict
    "endpoints" (required "etcd.endpoints must name your etcd" .Values.etcd.endpoints)
    "prefix" .Values.etcd.prefix)
  "s3" (dict
    "endpoint" .Values.s3.endpoint
    "region" .Values.s3.region
    "bucket" .Values.s3.bucket
    "prefix" .Values.s3.prefix)
  "cache" (dict "dir" "/cache") }}
{{- toYaml (mergeOverwrite $cluster (deepCopy .Values.settings)) }}
{{- else if eq .Values.mode "standalone" }}
{{- toYaml .Values.settings }}
{{- else }}
{{- fail (printf "mode is standalone or cluster, not %s" .Values.mode) }}
{{- end }}
{{- end }}
