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

  # An error of this output and not of a variable: a validation may not read what is made of it.
  precondition {
    condition     = local.base_problem == ""
    error_message = local.base_problem
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
