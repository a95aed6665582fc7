# The Helm overlay.
#
# Helm replaces lists, so the overlay repeats the whole list of containers from the base. It contains nothing else of
# the template, so labels, volumes and the rest stay as the operator's own files set them. With --reuse-values an empty
# overlay would change nothing, so switching off writes the base's list back.

locals {
  on_overlay_json = jsonencode(merge(
    { (var.pod_template_name) = { spec = { containers = try(local.on_template.spec.containers, []) } } },
    local.outputs_template == null ? {} : { (local.outputs_template_name) = local.outputs_template },
  ))
  off_overlay_json = jsonencode({
    (var.pod_template_name) = { spec = { containers = try([for container in local.off_template.spec.containers : container], []) } }
  })

  # {"services":{"configs":{"podTemplates": ... }}}
  overlay_open  = join("", [for key in local.helm_path : "{${jsonencode(key)}:"])
  overlay_close = join("", [for key in local.helm_path : "}"])

  on_overlay  = "# Azure ML mirror: on. Written by Terraform; put it after your own files (helm upgrade -f).\n${yamlencode(jsondecode("${local.overlay_open}${local.on_overlay_json}${local.overlay_close}"))}"
  off_overlay = "# Azure ML mirror: off. Written by Terraform; it writes the template back as it was before.\n${yamlencode(jsondecode("${local.overlay_open}${local.off_overlay_json}${local.overlay_close}"))}"
  overlay     = local.enabled ? local.on_overlay : local.off_overlay
}
