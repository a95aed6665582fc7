variable "should_enable_azureml_mirror" {
  description = "Whether OSMO pods get the coordinates of the Azure ML workspace. `false` takes them away again."
  type        = bool
  default     = true
  nullable    = false
}

variable "azureml_workspace" {
  description = <<-EOT
    The Azure ML workspace that runs are mirrored to; subscription, resource group and name are read from `id`.
    Pass the platform's output as it is. `null`: look in `platform_state`, else the mirror is off.
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
    # The pattern is that of local.workspace_id_pattern; a validation may not read locals that depend on variables,
    # and an unknown id (a workspace made in the same apply) is judged once it is known.
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
    Where the platform's Terraform state is stored, for `terraform_remote_state`; read only where `azureml_workspace` is null.
    `output` is the name of the output that holds the workspace. Credentials belong into the backend's
    environment variables (ARM_*, AWS_*): what is in `config` is written into this state.
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
