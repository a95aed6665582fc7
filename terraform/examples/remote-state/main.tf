# The mirror in a root of its own: the workspace is found in the platform's state, wherever that is stored.
# OSMO's database holds the pod templates here (6.2), so that the operator's osmo CLI writes them.

terraform {
  required_version = ">= 1.9"
}

variable "platform_state" {
  description = "The platform's backend. Credentials go into its environment variables (ARM_*), never in here."
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
    # Large checkpoints on a slow link: seconds the Azure ML client waits for one upload.
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
