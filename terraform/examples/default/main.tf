# The mirror in the platform's root module: the module that creates the workspace passes its output on.
#
# The same apply may create the workspace: its id may be unknown at plan time.

terraform {
  required_version = ">= 1.9"
}

# Stands for the platform's module. Its output is an object with an id, or null if it creates no workspace.
variable "azureml_workspace" {
  description = "The platform's workspace; in a real root this is module.platform.azureml_workspace."
  type        = object({ id = string, name = optional(string), workspace_id = optional(string) })
  default     = null
}

variable "release_values" {
  description = "The file of: helm get values osmo --namespace osmo-control-plane --all --output json"
  type        = string
  default     = null
}

module "azureml_mirror" {
  source = "../.."

  azureml_workspace   = var.azureml_workspace
  osmo_release_values = var.release_values

  helm_release = {
    name      = "osmo"
    namespace = "osmo-control-plane"
    chart     = "osmo/service"
    version   = "1.3.1"
  }
}

output "mirror_reason" {
  description = "Why the mirror is on or off."
  value       = module.azureml_mirror.mirror_reason
}
