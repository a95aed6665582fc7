# The mirror in its own root module. It finds the workspace in the platform's state, wherever that is stored. Here
# OSMO's database contains the pod templates (6.2), so the operator's osmo CLI writes them.

terraform {
  required_version = ">= 1.9"
}

variable "platform_state" {
  description = "The platform's backend. Put credentials into its environment variables (ARM_*), never here."
  type        = object({ backend = string, config = any })
  default = {
    backend = "azurerm"
    config = {
      resource_group_name  = "rg-terraform"
      storage_account_name = "stterraform"
      container_name       = "tfstate"
      key                  = "platform.tfstate"
      use_azuread_auth     = true
    }
  }
}

module "azureml_mirror" {
  source = "../.."

  platform_state   = var.platform_state
  osmo_config_mode = "api"

  extra_env = {
    # For large checkpoints on a slow link: how many seconds the Azure ML client waits for one upload.
    AZUREML_ARTIFACTS_DEFAULT_TIMEOUT = "1800"
  }
}

output "mirror_reason" {
  description = "Why the mirror is on or off."
  value       = module.azureml_mirror.mirror_reason
}

output "osmo_api_spec" {
  description = "For the drift check: terraform output -raw osmo_api_spec | ../../scripts/osmo_pod_template.py apply --check --spec -"
  value       = module.azureml_mirror.osmo_api_spec
}
