# api mode at apply: the script reads the template through the operator's CLI, merges, writes, and reads it back.
#
# Two resources, as in main.helm.tf: `api_write` runs when the content changes, `api_off` only when the mirror is
# switched off or destroyed. The script gets nothing but the specification. It finds in OSMO's history what it added, so
# that a removal removes exactly that.

locals {
  writes_api = local.enabled && var.osmo_config_mode == "api"

  api_spec = jsonencode({
    template           = var.pod_template_name
    env                = local.mirror_env
    base               = local.off_template
    outputs_template   = local.outputs_template
    overwrite_existing = var.overwrite_existing
  })
}

resource "terraform_data" "api_off" {
  for_each = toset(local.writes_api ? [var.pod_template_name] : [])

  input = {
    spec   = local.api_spec
    osmo   = var.osmo_cli
    python = var.python
  }

  lifecycle {
    create_before_destroy = true
  }

  provisioner "local-exec" {
    when    = destroy
    command = "\"$PYTHON\" \"$SCRIPT\" remove"
    quiet   = true
    environment = {
      PYTHON                  = self.input.python
      PYTHONDONTWRITEBYTECODE = "1"
      SCRIPT                  = "${path.module}/scripts/osmo_pod_template.py"
      AZUREML_MIRROR_OSMO     = self.input.osmo
      AZUREML_MIRROR_SPEC     = self.input.spec
    }
  }
}

resource "terraform_data" "api_write" {
  count = local.writes_api ? 1 : 0

  triggers_replace = local.api_spec

  depends_on = [terraform_data.api_off]

  provisioner "local-exec" {
    command = "\"$PYTHON\" \"$SCRIPT\" apply"
    quiet   = true
    environment = {
      PYTHON                  = var.python
      PYTHONDONTWRITEBYTECODE = "1"
      SCRIPT                  = "${path.module}/scripts/osmo_pod_template.py"
      AZUREML_MIRROR_OSMO     = var.osmo_cli
      AZUREML_MIRROR_SPEC     = local.api_spec
    }
  }
}
