variable "should_enable_azureml_mirror" {
  description = "Whether OSMO pods get the coordinates of the Azure ML workspace. `false` removes them again."
  type        = bool
  default     = true
  nullable    = false
}

variable "azureml_workspace" {
  description = <<-EOT
    The Azure ML workspace that runs are mirrored to. Subscription, resource group and name are read from `id`.
    Pass the platform's output unchanged. If `null`, the module looks in `platform_state`; without that, the mirror is off.
    Example: `{ id = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/rg-robots/providers/Microsoft.MachineLearningServices/workspaces/mlw-robots" }`
  EOT
  type = object({
    id           = string
    name         = optional(string)
    workspace_id = optional(string)
  })
  default = null

  validation {
    condition     = var.azureml_workspace == null ? true : try(var.azureml_workspace.id, null) != null
    error_message = "azureml_workspace.id is null. Pass null for the whole object where there is no workspace, or an id like \"/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/rg-robots/providers/Microsoft.MachineLearningServices/workspaces/mlw-robots\"."
  }

  validation {
    # The same pattern as local.workspace_id_pattern. An unknown id (a workspace created in the same apply) is checked
    # once it is known.
    condition     = var.azureml_workspace == null ? true : var.azureml_workspace.id == null ? true : can(regex(local.workspace_id_pattern, var.azureml_workspace.id))
    error_message = "azureml_workspace.id is not the resource id of an Azure ML workspace. It has the form \"/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/rg-robots/providers/Microsoft.MachineLearningServices/workspaces/mlw-robots\" (`az ml workspace show --query id`)."
  }

  validation {
    condition = (
      var.azureml_workspace == null ? true :
      try(var.azureml_workspace.name, null) == null ? true :
      lower(var.azureml_workspace.name) == lower(try(regex(local.workspace_id_pattern, var.azureml_workspace.id).name, var.azureml_workspace.name))
    )
    error_message = "azureml_workspace.name is not the last segment of azureml_workspace.id: two workspaces are mixed. Leave name out, or pass the two from the same output, for example name = \"mlw-robots\" with an id that ends in /workspaces/mlw-robots."
  }
}

variable "platform_state" {
  description = <<-EOT
    Where the platform's Terraform state is stored, for `terraform_remote_state`. Read only if `azureml_workspace` is null.
    `output` is the name of the output with the workspace. Credentials belong in the backend's
    environment variables (ARM_*, AWS_*), because `config` is stored in this state.
    Example: `{ backend = "azurerm", config = { resource_group_name = "rg-tf", storage_account_name = "sttf", container_name = "tfstate", key = "platform.tfstate", use_azuread_auth = true } }`
  EOT
  type = object({
    backend   = string
    config    = any
    workspace = optional(string)
    output    = optional(string, "azureml_workspace")
  })
  default = null

  validation {
    condition = var.platform_state == null ? true : length(setintersection(
      try(keys(var.platform_state.config), []),
      ["access_key", "secret_key", "token", "sas_token", "client_secret", "client_certificate_password", "password", "oidc_token", "conn_str", "credentials"],
    )) == 0
    error_message = "platform_state.config holds a secret, which Terraform would write into the state. Take it out and export it for the backend instead, for example ARM_ACCESS_KEY, ARM_SAS_TOKEN or ARM_CLIENT_SECRET (azurerm), AWS_SECRET_ACCESS_KEY (s3)."
  }
}
