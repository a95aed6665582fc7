variable "helm_values_path" {
  description = "Where the chart keeps pod templates. Newer charts: `configuration.podTemplates`."
  type        = string
  default     = "services.configs.podTemplates"
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+){0,4}$", var.helm_values_path))
    error_message = "helm_values_path is one to five keys joined by dots, for example \"services.configs.podTemplates\" or \"configuration.podTemplates\"."
  }
}

variable "helm_values_file" {
  description = "configmap mode: path of the overlay for `helm upgrade -f`, which an apply writes. When the mirror is switched off, the file is written once more, with the base. Example: `\"out/osmo-azureml-mirror.yaml\"`"
  type        = string
  default     = null

  validation {
    condition     = var.helm_values_file == null ? true : length(trimspace(var.helm_values_file)) > 0 && !endswith(var.helm_values_file, "/")
    error_message = "helm_values_file is the path of a file, for example \"out/osmo-azureml-mirror.yaml\"."
  }

  validation {
    condition     = var.helm_values_file == null || var.osmo_config_mode == "configmap"
    error_message = "helm_values_file is for osmo_config_mode = \"configmap\"; in api mode there are no Helm values to write. Take it out, or set osmo_config_mode = \"configmap\"."
  }
}

variable "helm_release" {
  description = <<-EOT
    configmap mode: the installed OSMO release. An apply runs `helm upgrade --reuse-values` on it with the overlay.
    `chart` and `version` are the installed ones (`helm list`). The module never changes them for you.
    Example: `{ name = "osmo", namespace = "osmo-control-plane", chart = "osmo/service", version = "1.3.0" }`
  EOT
  type = object({
    name      = string
    namespace = string
    chart     = string
    version   = optional(string)
  })
  default = null

  validation {
    condition     = var.helm_release == null ? true : alltrue([for part in [var.helm_release.name, var.helm_release.namespace] : can(regex("^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", part))])
    error_message = "helm_release.name and .namespace are lower case letters, digits, - and ., for example { name = \"osmo\", namespace = \"osmo-control-plane\", chart = \"osmo/service\", version = \"1.3.0\" }."
  }

  validation {
    # Without a version Helm takes the newest chart, so that switching the mirror on would upgrade OSMO.
    condition     = var.helm_release == null ? true : var.helm_release.version != null || can(regex("^[./]|\\.tgz$", var.helm_release.chart))
    error_message = "helm_release.version is needed unless chart is a local path: without it Helm would upgrade OSMO to the newest chart. Give the installed one (helm list), for example version = \"1.3.0\"."
  }

  validation {
    condition     = var.helm_release == null ? true : !startswith(var.helm_release.chart, "-") && !startswith(coalesce(var.helm_release.version, "0"), "-") && length(trimspace(var.helm_release.chart)) > 0
    error_message = "helm_release.chart is a chart reference, for example \"osmo/service\", \"oci://registry/helm/service\" or \"./service-1.3.0.tgz\"."
  }

  validation {
    condition     = var.helm_release == null || var.osmo_config_mode == "configmap"
    error_message = "helm_release is for osmo_config_mode = \"configmap\"; in api mode the operator's osmo CLI writes the template. Take it out, or set osmo_config_mode = \"configmap\"."
  }
}
