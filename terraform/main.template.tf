# The pod template: the base, plus the mirror's variables in the user container.
#
# OSMO merges templates into the pod it generates, and merges lists of maps by `name`. The user container is called
# {{USER_CONTAINER_NAME}} (spaces inside the marker are allowed). Only its `env` changes; everything else is passed on.
# A condition would convert dynamic values to one type: `jsondecode(condition ? jsonencode(a) : jsonencode(b))` keeps
# their types.

locals {
  user_container_pattern = "^\\{\\{\\s*USER_CONTAINER_NAME\\s*\\}\\}$"
  outputs_template_name  = "azureml_mirror_outputs"
  own_env_names          = ["AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZUREML_WORKSPACE_NAME", "OSMO_WORKFLOW_ID"]

  # In a fixed order, so that a second plan finds nothing to change.
  mirror_env = !local.enabled ? [] : concat(
    [for name in slice(local.own_env_names, 0, 3) : { name = name, value = local.coordinates[name] }],
    # OSMO puts no run id into a pod. WF_ID is one of the names it renders templates with (src/utils/job/task.py, 6.3).
    [{ name = "OSMO_WORKFLOW_ID", value = "{{WF_ID}}" }],
    [for name in sort(keys(var.extra_env)) : { name = name, value = var.extra_env[name] }],
  )
  mirror_values = { for variable in local.mirror_env : variable.name => variable.value }

  base_containers = try([for container in local.base_spec.containers : container], [])
  user_containers = [for container in local.base_containers : can(regex(local.user_container_pattern, container.name))]

  # A base that was read from a release while the mirror was on (`helm get values` after an apply) contains the mirror's
  # own variables. Switching off must not write them back. OSMO_WORKFLOW_ID={{WF_ID}} identifies such a base, because
  # nobody else sets it.
  marked = [
    for n, container in local.base_containers : local.user_containers[n] && anytrue(try([
      for variable in container.env : try(variable.name == "OSMO_WORKFLOW_ID" && variable.value == "{{WF_ID}}", false)
    ], []))
  ]
  stripped_names = concat(local.own_env_names, keys(var.extra_env))
  base_without_mirror = [
    for n, container in local.base_containers : jsondecode(local.marked[n] ? jsonencode(merge(
      { for key, value in container : key => value if key != "env" },
      length([for variable in container.env : variable if !contains(local.stripped_names, try(variable.name, ""))]) == 0 ? {} : {
        env = [for variable in container.env : variable if !contains(local.stripped_names, try(variable.name, ""))]
      },
    )) : jsonencode(container))
  ]

  # An existing variable is replaced in its place, whatever it contains (also valueFrom, because Kubernetes refuses a
  # pod that has both `value` and valueFrom). A second entry of the same name is removed.
  envs = [for container in local.base_containers : try([for variable in container.env : variable], [])]
  env_names = [
    for env in local.envs : [for n, variable in env : try(tostring(variable.name), "")]
  ]
  merged_containers = [
    for n, container in local.base_containers : jsondecode(local.user_containers[n] ? jsonencode(merge(container, {
      env = concat(
        [
          for place, variable in local.envs[n] : jsondecode(
            contains(keys(local.mirror_values), local.env_names[n][place])
            ? jsonencode({ name = local.env_names[n][place], value = local.mirror_values[local.env_names[n][place]] })
            : jsonencode(variable)
          )
          if !contains(keys(local.mirror_values), local.env_names[n][place]) || index(local.env_names[n], local.env_names[n][place]) == place
        ],
        [for variable in local.mirror_env : variable if !contains(local.env_names[n], variable.name)],
      )
    })) : jsonencode(container))
  ]
  added_container = anytrue(local.user_containers) ? [] : [{ name = "{{USER_CONTAINER_NAME}}", env = local.mirror_env }]

  off_template = jsondecode(
    !anytrue(local.marked) ? jsonencode(local.base) :
    jsonencode(merge(local.base, { spec = merge(local.base_spec, { containers = local.base_without_mirror }) }))
  )
  on_template = merge(local.base, {
    spec = merge(local.base_spec, { containers = concat(local.merged_containers, local.added_container) })
  })
  pod_template = jsondecode(local.enabled ? jsonencode(local.on_template) : jsonencode(local.off_template))

  outputs_template = !local.enabled || var.run_outputs_volume == null ? null : {
    spec = {
      volumes = [{
        name                  = "azureml-mirror-outputs"
        persistentVolumeClaim = { claimName = var.run_outputs_volume.claim_name }
      }]
      containers = [{
        name = "{{USER_CONTAINER_NAME}}"
        volumeMounts = [{
          name      = "azureml-mirror-outputs"
          mountPath = var.run_outputs_volume.mount_path
          readOnly  = var.run_outputs_volume.read_only
        }]
      }]
    }
  }
}
