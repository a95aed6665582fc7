# Warnings about what would make mirrors fail later but does not forbid an apply. With base_pod_template the plan sees
# only one of several templates.

locals {
  # The templates that a pod of this release may be built from: all in the values, or else OSMO's stock template.
  seen_templates = [
    for template in jsondecode(local.from_values && can(keys(local.templates)) ? local.templates_text : jsonencode({ stock = local.base })) : template
  ]

  seen_identity_label  = anytrue([for template in local.seen_templates : try(tostring(template.metadata.labels["azure.workload.identity/use"]) == "true", false)])
  seen_service_account = anytrue([for template in local.seen_templates : try(length(template.spec.serviceAccountName) > 0, false)])
}

check "workload_identity" {
  assert {
    condition     = !local.writes_values || var.base_pod_template != null || local.base_problem != "" || local.seen_identity_label
    error_message = "No pod template in what the module was given carries the label azure.workload.identity/use: \"true\", so that a mirror would find no credential. Add it to the metadata.labels of ${var.pod_template_name} or of a template beside it (OSMO's is default_ctrl)."
  }
  assert {
    condition     = !local.writes_values || var.base_pod_template != null || local.base_problem != "" || local.seen_service_account
    error_message = "No pod template in what the module was given names a serviceAccountName, so that a mirror would find no credential. Add spec.serviceAccountName, for example \"osmo-workflow\", to ${var.pod_template_name} or to a template beside it (OSMO's is default_ctrl)."
  }
}
