variable "base_pod_template" {
  description = "The pod template to extend, as an object. For a release that is not installed yet: `yamldecode(file(\"values.yaml\")).services.configs.podTemplates.default_user`. Set this or `osmo_release_values`, not both."
  type        = any
  default     = null

  validation {
    condition     = var.base_pod_template == null ? true : can(keys(var.base_pod_template)) && (try(var.base_pod_template.spec, null) == null ? true : can(keys(var.base_pod_template.spec)))
    error_message = "base_pod_template is a pod template as an object, for example { spec = { containers = [{ name = \"{{USER_CONTAINER_NAME}}\", resources = { limits = { cpu = \"{{USER_CPU}}\" } } }] } }."
  }

  validation {
    condition     = length([for given in [var.base_pod_template != null, var.osmo_release_values != null] : given if given]) <= 1
    error_message = "Give one base only: base_pod_template or osmo_release_values (preferred), for example osmo_release_values = \"release-values.json\" without base_pod_template."
  }
}

variable "osmo_release_values" {
  description = "Path of the JSON file that `helm get values RELEASE --namespace NAMESPACE --all --output json` wrote. Preferred, because only this file contains the chart's defaults and the changes made with `--set`."
  type        = string
  default     = null

  validation {
    condition     = var.osmo_release_values == null ? true : fileexists(var.osmo_release_values)
    error_message = "There is no file at osmo_release_values. Make it with: helm get values osmo --namespace osmo-control-plane --all --output json > release-values.json."
  }

  validation {
    condition     = var.osmo_release_values == null ? true : !fileexists(var.osmo_release_values) ? true : can(keys(jsondecode(file(var.osmo_release_values))))
    error_message = "osmo_release_values is not a JSON object. Make it with: helm get values osmo --namespace osmo-control-plane --all --output json > release-values.json (with --output json)."
  }
}

variable "accept_stock_template" {
  description = "configmap mode: whether the overlay may repeat the container of OSMO's stock `default_user` if no base is given. Set it only for a release whose values do not change that template."
  type        = bool
  default     = false
  nullable    = false
}

variable "extra_env" {
  description = "More variables for every OSMO pod. They take precedence over a workflow's `environment:`. They are stored in the state, so never put a secret here. Example: `{ AZURE_TOKEN_CREDENTIALS = \"WorkloadIdentityCredential\" }`"
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for name, value in var.extra_env : can(regex("^[A-Za-z_][A-Za-z0-9_]*$", name)) && value != null])
    error_message = "extra_env: a name has letters, digits and _ and does not begin with a digit, and a value is not null, for example { AZUREML_ARTIFACTS_DEFAULT_TIMEOUT = \"600\" }."
  }

  validation {
    condition     = length(setintersection(keys(var.extra_env), local.own_env_names)) == 0
    error_message = "extra_env may not set ${join(", ", local.own_env_names)}: the module sets them itself. Take them out; to mirror elsewhere change azureml_workspace, for example azureml_workspace = { id = \"/subscriptions/.../workspaces/mlw-other\" }."
  }
}

variable "run_outputs_volume" {
  description = <<-EOT
    A persistent volume claim for run outputs (ReadWriteMany, in the workflows' namespace). It becomes a second pod template,
    `azureml_mirror_outputs`, which the operator lists in one platform's `override_pod_template`. It is not part of
    `default_user`, because a missing claim would then stop every pod.
    Example: `{ claim_name = "run-outputs", mount_path = "/mnt/outputs" }`
  EOT
  type = object({
    claim_name = string
    mount_path = optional(string, "/mnt/outputs")
    read_only  = optional(bool, false)
  })
  default = null

  validation {
    condition     = var.run_outputs_volume == null ? true : can(regex("^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", var.run_outputs_volume.claim_name))
    error_message = "run_outputs_volume.claim_name is the name of a persistent volume claim (lower case letters, digits, - and .), for example \"run-outputs\"."
  }

  validation {
    condition     = var.run_outputs_volume == null ? true : can(regex("^/[^:]*$", var.run_outputs_volume.mount_path)) && !can(regex("^/(osmo(/.*)?)?$", var.run_outputs_volume.mount_path))
    error_message = "run_outputs_volume.mount_path is an absolute path without a colon, not / and not under /osmo (OSMO's own), for example \"/mnt/outputs\"."
  }
}
