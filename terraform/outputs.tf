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
  description = "The resulting pod template. In api mode a preview based on the given base: the script merges into OSMO's current template."
  value       = local.pod_template

  # Checked in this output and not in a variable, because a validation may not read what is computed from the variable.
  precondition {
    condition     = local.base_problem == ""
    error_message = local.base_problem
  }
}

output "helm_values" {
  description = "The overlay for `helm upgrade -f`, after the operator's own files. When the mirror is off, it restores the base."
  value       = local.overlay
}

output "osmo_api_spec" {
  description = "api mode: the script's specification as JSON, for `scripts/osmo_pod_template.py apply --check --spec FILE`. Otherwise null."
  value       = local.writes_api ? local.api_spec : null
}
