# The mirror for a physical-ai-toolchain deployment, in its own root module. It reads that deployment's state and needs
# no change to it.
#
# The toolchain's deploy script (infrastructure/setup/03-deploy-osmo.sh) runs `helm upgrade --install` with three values
# files: the control plane's, the identity's and the platforms'. Only the last can be chosen, with --platform-values
# PATH. The script does not reuse values, so its next run removes a variable that was added to the release by hand. That
# is why the overlay is merged with the platforms' values into one file.
#
#   terraform apply -var toolchain="$HOME/physical-ai-toolchain"
#   terraform output -raw platform_values > osmo-platforms-with-mirror.yaml
#   "$HOME/physical-ai-toolchain/infrastructure/setup/03-deploy-osmo.sh" --platform-values "$PWD/osmo-platforms-with-mirror.yaml"
#
# To switch the mirror off, apply with -var mirror=false and run the other two commands again. The file then contains
# the platforms' values and the base.

terraform {
  required_version = ">= 1.9"
}

variable "toolchain" {
  description = "The checkout of physical-ai-toolchain."
  type        = string
}

variable "mirror" {
  description = "Whether the mirror is on."
  type        = bool
  default     = true
}

locals {
  values         = "${var.toolchain}/infrastructure/setup/values"
  platforms_file = "${local.values}/osmo-platforms.yaml"

  platforms = yamldecode(file(local.platforms_file))
  overlay   = yamldecode(module.azureml_mirror.helm_values)
  # The platforms' file has templates of its own. The overlay adds default_user to them.
  templates = merge(try(local.platforms.services.configs.podTemplates, {}), local.overlay.services.configs.podTemplates)
}

module "azureml_mirror" {
  source = "../.."

  should_enable_azureml_mirror = var.mirror

  # That deployment keeps its state in a file by default. If it uses a backend, configure the same one here.
  platform_state = {
    backend = "local"
    config  = { path = "${var.toolchain}/infrastructure/terraform/terraform.tfstate" }
  }

  # The control plane's file contains all of default_user. The other two files do not change it.
  base_pod_template = yamldecode(file("${local.values}/osmo-control-plane.yaml")).services.configs.podTemplates.default_user
}

output "mirror_reason" {
  description = "Why the mirror is on or off."
  value       = module.azureml_mirror.mirror_reason
}

output "platform_values" {
  description = "The platforms' values merged with the overlay, for 03-deploy-osmo.sh --platform-values."
  value = yamlencode(merge(local.platforms, {
    services = merge(local.platforms.services, {
      configs = merge(local.platforms.services.configs, { podTemplates = local.templates })
    })
  }))
}
