{{/* Name of everything: the release's, unless it is said otherwise. */}}
{{- define "evenkeel.name" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "evenkeel.labels" -}}
app.kubernetes.io/name: evenkeel
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Labels that select the pods of one part: (list . "operator"). */}}
{{- define "evenkeel.selector" -}}
app.kubernetes.io/name: evenkeel
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* An image: (list . .Values.operator.image). */}}
{{- define "evenkeel.image" -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 0).Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Environment that operator and agent share: where the API server is, and how registries are reached. */}}
{{- define "evenkeel.env" -}}
{{- if .Values.apiServer.host }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .Values.apiServer.host | quote }}
{{- end }}
{{- if .Values.apiServer.port }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ .Values.apiServer.port | quote }}
{{- end }}
{{- if .Values.pullSecretName }}
- name: EVENKEEL_DOCKER_CONFIG
  value: /etc/evenkeel/registry/config.json
{{- end }}
{{- if .Values.caConfigMapName }}
- name: EVENKEEL_CA_FILE
  value: /etc/evenkeel/ca/ca.crt
{{- end }}
{{- if .Values.proxy.url }}
- name: HTTP_PROXY
  value: {{ .Values.proxy.url | quote }}
- name: HTTPS_PROXY
  value: {{ .Values.proxy.url | quote }}
- name: NO_PROXY
  # The API server is no registry.
  value: {{ prepend .Values.proxy.noProxy "$(KUBERNETES_SERVICE_HOST)" | join "," | quote }}
{{- end }}
{{- end -}}

{{- define "evenkeel.registryMounts" -}}
{{- if .Values.pullSecretName }}
- name: registry
  mountPath: /etc/evenkeel/registry
  readOnly: true
{{- end }}
{{- if .Values.caConfigMapName }}
- name: ca
  mountPath: /etc/evenkeel/ca
  readOnly: true
{{- end }}
{{- end -}}

{{- define "evenkeel.registryVolumes" -}}
{{- if .Values.pullSecretName }}
- name: registry
  secret:
    secretName: {{ .Values.pullSecretName }}
    # It may come later: until then registries are asked without credentials, and say so.
    optional: true
    items:
      - key: .dockerconfigjson
        path: config.json
{{- end }}
{{- if .Values.caConfigMapName }}
- name: ca
  configMap:
    name: {{ .Values.caConfigMapName }}
    optional: true
    items:
      - key: ca.crt
        path: ca.crt
{{- end }}
{{- end -}}

{{/* Not empty if Nodes get lifecycle conditions; Kubernetes has names for them from 1.37 on. */}}
{{- define "evenkeel.lifecycleConditions" -}}
{{- $wanted := .Values.operator.lifecycleConditions -}}
{{- if or (eq $wanted "always") (and (eq $wanted "auto") (semverCompare ">=1.37-0" .Capabilities.KubeVersion.Version)) -}}
yes
{{- end -}}
{{- end -}}
