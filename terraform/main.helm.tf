# configmap mode at apply: the overlay is written to a file, applied to a release, or both.
#
# Each way has two resources. The one that writes is replaced when its content changes, and runs only on creation, so
# that a change is one write without a gap. The `_off` one runs only when the mirror is switched off or destroyed. A
# destroy provisioner can read only `self`, so what it needs is in `input`, which is updated in place. Its key is its
# target, and it uses create_before_destroy, so that a new target is written before the old one is restored.

locals {
  overlay_script = "${path.module}/files/helm_overlay.sh"

  writes_file    = local.enabled && var.osmo_config_mode == "configmap" && var.helm_values_file != null
  writes_release = local.enabled && var.osmo_config_mode == "configmap" && var.helm_release != null

  release = var.helm_release == null ? null : {
    name         = var.helm_release.name
    namespace    = var.helm_release.namespace
    chart        = var.helm_release.chart
    version      = var.helm_release.version == null ? "" : var.helm_release.version
    outputs_key  = "${var.helm_values_path}.${local.outputs_template_name}"
    outputs_name = local.outputs_template_name
  }
}

resource "terraform_data" "values_file_off" {
  for_each = toset(local.writes_file ? [var.helm_values_file] : [])

  input = { file = each.key, overlay = local.off_overlay }

  lifecycle {
    create_before_destroy = true
  }

  provisioner "local-exec" {
    when    = destroy
    command = "sh \"$SCRIPT\" rewrite"
    quiet   = true
    environment = {
      SCRIPT  = "${path.module}/files/helm_overlay.sh"
      FILE    = self.input.file
      OVERLAY = self.input.overlay
    }
  }
}

resource "terraform_data" "values_file" {
  count = local.writes_file ? 1 : 0

  triggers_replace = { file = var.helm_values_file, overlay = local.on_overlay }

  depends_on = [terraform_data.values_file_off]

  provisioner "local-exec" {
    command = "sh \"$SCRIPT\" write"
    quiet   = true
    environment = {
      SCRIPT  = local.overlay_script
      FILE    = var.helm_values_file
      OVERLAY = local.on_overlay
    }
  }
}

resource "terraform_data" "helm_release_off" {
  for_each = toset(local.writes_release ? ["${local.release.namespace}/${local.release.name}"] : [])

  input = { release = local.release, overlay = local.off_overlay }

  lifecycle {
    create_before_destroy = true
  }

  provisioner "local-exec" {
    when    = destroy
    command = "sh \"$SCRIPT\" restore"
    quiet   = true
    environment = {
      SCRIPT       = "${path.module}/files/helm_overlay.sh"
      RELEASE      = self.input.release.name
      NAMESPACE    = self.input.release.namespace
      CHART        = self.input.release.chart
      VERSION      = self.input.release.version
      OUTPUTS_KEY  = self.input.release.outputs_key
      OUTPUTS_NAME = self.input.release.outputs_name
      OVERLAY      = self.input.overlay
    }
  }
}

resource "terraform_data" "helm_release" {
  count = local.writes_release ? 1 : 0

  triggers_replace = { release = local.release, overlay = local.on_overlay }

  depends_on = [terraform_data.helm_release_off]

  provisioner "local-exec" {
    command = "sh \"$SCRIPT\" upgrade"
    quiet   = true
    environment = {
      SCRIPT       = local.overlay_script
      RELEASE      = local.release.name
      NAMESPACE    = local.release.namespace
      CHART        = local.release.chart
      VERSION      = local.release.version
      OUTPUTS_KEY  = local.release.outputs_key
      OUTPUTS_NAME = local.release.outputs_name
      OVERLAY      = local.on_overlay
    }
  }
}
