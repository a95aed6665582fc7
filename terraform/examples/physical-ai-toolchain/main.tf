# The mirror beside a physical-ai-toolchain deployment, in a root of its own, with that deployment's state as it is.
#
# Its deploy script (infrastructure/setup/03-deploy-osmo.sh) runs `helm upgrade --install` with three values files: the
# control plane's, the identity's, and the platforms', of which the last can be given: --platform-values PATH. It does
# not reuse values, so that a variable put into the release by hand is gone after its next run. So the overlay goes in
# through that file: the platforms' values and the overlay in one, since a values file holds one document.
#
#   terraform apply -var toolchain="$HOME/physical-ai-toolchain"
#   terraform output -raw platform_values > osmo-platforms-with-mirror.yaml
#   "$HOME/physical-ai-toolchain/infrastructure/setup/03-deploy-osmo.sh" --platform-values "$PWD/osmo-platforms-with-mirror.yaml"
#
# Off: apply with -var mirror=false, and the other two again: the file is then the platforms' values and the base.

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
  # The platforms' file names templates of its own; the overlay adds default_user beside them.
  templates = merge(try(local.platforms.services.configs.podTemplates, {}), local.overlay.services.configs.podTemplates)
}

module "azureml_mirror" {
  source = "../.."

  should_enable_azureml_mirror = var.mirror

  # That deployment keeps its state in a file unless it was given a backend; then give the same one here.
  platform_state = {
    backend = "local"
    config  = { path = "${var.toolchain}/infrastructure/terraform/terraform.tfstate" }
  }

  # The control plane's file holds the whole default_user, which neither of the other two changes.
  base_pod_template = yamldecode(file("${local.values}/osmo-control-plane.yaml")).services.configs.podTemplates.default_user
}

output "mirror_reason" {
  description = "Why the mirror is on or off."
  value       = module.azureml_mirror.mirror_reason
}

output "platform_values" {
  description = "The platforms' values with the overlay in them, for 03-deploy-osmo.sh --platform-values."
  value = yamlencode(merge(local.platforms, {
    services = merge(local.platforms.services, {
      configs = merge(local.platforms.services.configs, { podTemplates = local.templates })
    })
  }))
}
