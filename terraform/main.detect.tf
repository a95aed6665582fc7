# Detection: is there a workspace, and what are its coordinates?
#
# Whether the mirror is on depends only on the toggle and on whether a workspace is null, never on its attributes. The
# attributes of a workspace created in the same apply are unknown at plan time, and a count must be known.

locals {
  # Azure resource ids are case-insensitive. Portals and APIs spell `resourceGroups` differently.
  workspace_id_pattern = "(?i)^/subscriptions/(?P<subscription>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/resourceGroups/(?P<resource_group>[^/]{1,90})/providers/Microsoft\\.MachineLearningServices/workspaces/(?P<name>[A-Za-z0-9][A-Za-z0-9_-]{1,32})/?$"

  # A resource id is not a secret. If a platform marks its outputs as sensitive, a count could not use them. The mark is
  # removed from the result and from the id, because a mark inside an object makes every comparison sensitive.
  is_given    = nonsensitive(var.azureml_workspace != null)
  reads_state = var.should_enable_azureml_mirror && !local.is_given && var.platform_state != null
}

data "terraform_remote_state" "platform" {
  count = local.reads_state ? 1 : 0

  backend   = var.platform_state.backend
  config    = var.platform_state.config
  workspace = var.platform_state.workspace

  lifecycle {
    postcondition {
      condition = (
        try(nonsensitive(self.outputs[var.platform_state.output]), null) == null ? true :
        can(keys(nonsensitive(self.outputs[var.platform_state.output]))) && (
          try(nonsensitive(nonsensitive(self.outputs[var.platform_state.output]).id), "no id") == null ? true :
          can(regex(local.workspace_id_pattern, nonsensitive(nonsensitive(self.outputs[var.platform_state.output]).id)))
        )
      )
      error_message = "The output ${var.platform_state.output} of the platform's state is not a workspace: an object with an id like \"/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/rg-robots/providers/Microsoft.MachineLearningServices/workspaces/mlw-robots\" is needed. Correct platform_state.output, or pass azureml_workspace."
    }
  }
}

locals {
  state_output       = try(nonsensitive(data.terraform_remote_state.platform[0].outputs[var.platform_state.output]), null)
  state_workspace_id = try(nonsensitive(local.state_output.id), null)

  has_workspace = local.is_given || local.state_workspace_id != null
  enabled       = var.should_enable_azureml_mirror && local.has_workspace

  workspace_id    = local.is_given ? try(nonsensitive(nonsensitive(var.azureml_workspace).id), null) : local.state_workspace_id
  workspace_parts = local.enabled ? regex(local.workspace_id_pattern, local.workspace_id) : null

  coordinates = local.enabled ? {
    AZURE_SUBSCRIPTION_ID  = local.workspace_parts.subscription
    AZURE_RESOURCE_GROUP   = local.workspace_parts.resource_group
    AZUREML_WORKSPACE_NAME = local.workspace_parts.name
  } : {}

  reason_on = (
    !local.enabled ? "" :
    "The mirror is on: runs go to workspace ${local.workspace_parts.name} in resource group ${local.workspace_parts.resource_group}, found in ${
      local.is_given ? "azureml_workspace" : "the output ${try(var.platform_state.output, "")} of the platform's state"
      }.${
      var.osmo_config_mode == "configmap" ? "" :
      " api mode is for OSMO 6.2 and 6.3: from 6.4 on OSMO's configuration is in Helm values alone, and osmo_config_mode = \"configmap\" takes over."
    }"
  )
  reason_off = (
    !var.should_enable_azureml_mirror ? "The mirror is off because should_enable_azureml_mirror is false." :
    var.platform_state == null ? "The mirror is off because azureml_workspace is null and no platform_state is given to look for a workspace in." :
    !contains(keys(try(data.terraform_remote_state.platform[0].outputs, {})), var.platform_state.output) ? "The mirror is off because the platform's state has no output ${var.platform_state.output}." :
    "The mirror is off because the output ${var.platform_state.output} of the platform's state is null."
  )
}
