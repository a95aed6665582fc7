output "mirror_enabled" {
  description = "Whether OSMO pods get the coordinates."
  value       = local.enabled
}

output "mirror_reason" {
  description = "Why the mirror is on or off, as a sentence."
  value       = local.enabled ? local.reason_on : local.reason_off
}

output "azureml_env" {
  description = "The workspace's coordinates as environment variables; empty when the mirror is off."
  value       = local.coordinates
}

output "pod_template" {
  description = "The pod template as it shall stand. In api mode a preview on the given base: the script merges into what OSMO has."
  value       = local.pod_template

  # Findings in files are errors of this output and not of the variable: a validation may not read what is made of it.
  precondition {
    condition     = length(local.values_findings) == 0
    error_message = "osmo_values_files: ${join("; ", local.values_findings)}."
  }
  precondition {
    condition     = length(local.too_deep) == 0
    error_message = "osmo_values_files differ more than ${local.merge_depth} levels below ${var.helm_values_path}, at ${join(", ", local.too_deep)}. Give osmo_release_values instead: helm get values osmo --namespace osmo-control-plane --all --output json > release-values.json."
  }
  precondition {
    condition     = var.osmo_release_values == null || local.release_templates != "null"
    error_message = "osmo_release_values has nothing at ${var.helm_values_path}. Take the file with --all, and set helm_values_path to where the chart keeps its pod templates, for example \"configuration.podTemplates\"."
  }
  precondition {
    condition     = !local.from_values || local.release_templates == "null" && var.osmo_release_values != null || can(keys(local.templates[var.pod_template_name]))
    error_message = "The release's values have no pod template ${var.pod_template_name}; they have ${try(join(", ", keys(local.templates)), "none")}. Set pod_template_name to the one that every pool lists in common_pod_template, for example \"default_user\"."
  }
  precondition {
    condition = (
      (try(local.base.spec, null) == null ? true : can(keys(local.base.spec))) &&
      (try(local.base.spec.containers, null) == null ? true : !can(keys(local.base.spec.containers)) && can(length(local.base.spec.containers)) && !can(tostring(local.base.spec.containers)))
    )
    error_message = "The pod template ${var.pod_template_name} of the base is none: spec is a map and spec.containers a list, for example { spec = { containers = [{ name = \"{{USER_CONTAINER_NAME}}\" }] } }."
  }
}

output "helm_values" {
  description = "The overlay for `helm upgrade -f`, after the operator's own files. When the mirror is off it writes the base back."
  value       = local.overlay
}

output "osmo_api_spec" {
  description = "In api mode, what the script was told, as JSON: for `scripts/osmo_pod_template.py apply --check --spec FILE`. Else null."
  value       = local.writes_api ? local.api_spec : null
}
