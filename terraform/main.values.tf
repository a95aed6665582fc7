# The base: the pod template that the mirror's variables are added to, where it comes from, and whether OSMO reads it.
#
# The release's values are JSON that Helm has already merged by its own rules, so nothing is merged here. They are
# passed on as text, because HCL converts the branches of a condition to one type.

locals {
  helm_path = split(".", var.helm_values_path)

  # OSMO's stock template, which is also the charts' default (src/service/core/config/objects.py in OSMO 6.3).
  stock_resources = {
    cpu                 = "{{USER_CPU}}"
    memory              = "{{USER_MEMORY}}"
    "nvidia.com/gpu"    = "{{USER_GPU}}"
    "ephemeral-storage" = "{{USER_STORAGE}}"
  }
  stock_templates = {
    default_user = {
      spec = { containers = [{
        name      = "{{USER_CONTAINER_NAME}}"
        resources = { limits = local.stock_resources, requests = local.stock_resources }
      }] }
    }
  }

  # values_N is the part of the release's values below the first N keys of the path, or "null" if there is none.
  from_values = var.osmo_release_values != null
  values_0    = local.from_values ? jsonencode(jsondecode(file(var.osmo_release_values))) : "null"
  values_1    = jsonencode(try(jsondecode(local.values_0)[local.helm_path[0]], null))
  values_2    = length(local.helm_path) < 2 ? local.values_1 : jsonencode(try(jsondecode(local.values_1)[local.helm_path[1]], null))
  values_3    = length(local.helm_path) < 3 ? local.values_2 : jsonencode(try(jsondecode(local.values_2)[local.helm_path[2]], null))
  values_4    = length(local.helm_path) < 4 ? local.values_3 : jsonencode(try(jsondecode(local.values_3)[local.helm_path[3]], null))
  values_5    = length(local.helm_path) < 5 ? local.values_4 : jsonencode(try(jsondecode(local.values_4)[local.helm_path[4]], null))

  templates_text = local.values_5
  templates      = jsondecode(local.templates_text)

  # The map that contains the pod templates: services.configs or configuration. A path with one key has none.
  configuration_path = join(".", slice(local.helm_path, 0, length(local.helm_path) - 1))
  configuration = jsondecode(
    length(local.helm_path) == 1 ? "null" : [local.values_1, local.values_2, local.values_3, local.values_4][length(local.helm_path) - 2]
  )

  known_paths = [
    for path, templates in {
      "services.configs.podTemplates" = try(jsondecode(local.values_0).services.configs.podTemplates, null)
      "configuration.podTemplates"    = try(jsondecode(local.values_0).configuration.podTemplates, null)
    } : path if can(keys(templates))
  ]

  base_json = (
    var.base_pod_template != null ? jsonencode(var.base_pod_template) :
    local.from_values ? jsonencode(try(local.templates[var.pod_template_name], null)) :
    var.pod_template_name == "default_user" ? jsonencode(local.stock_templates.default_user) : "{}"
  )
  # Anything but a map is refused below. Here it only must not break the expressions.
  base      = jsondecode(startswith(local.base_json, "{") ? local.base_json : "{}")
  base_spec = jsondecode(can(keys(local.base.spec)) ? jsonencode(local.base.spec) : "{}")

  # What the operator must fix, most basic problem first. Switching off is never refused because of OSMO's
  # configuration.
  writes_values = local.enabled && var.osmo_config_mode == "configmap"
  take_values   = "helm get values osmo --namespace osmo-control-plane --all --output json > release-values.json"
  base_problems = [
    {
      when = local.from_values && !can(keys(local.templates))
      say = "osmo_release_values has no pod templates at ${var.helm_values_path}. ${
        length(local.known_paths) > 0
        ? "It has them at ${join(" and ", local.known_paths)}: set helm_values_path = \"${local.known_paths[0]}\"."
        : "Take the file with --all (${local.take_values}). A chart of OSMO 6.2 has none: set osmo_config_mode = \"api\" and leave osmo_release_values out."
      }"
    },
    {
      # The values that Helm's templates treat as false. A chart without the switch is not affected.
      when = local.from_values && local.writes_values && contains(["false", "null", "0", "\"\""], try(jsonencode(local.configuration.enabled), "absent"))
      say = join(" ", [
        "The release has ${local.configuration_path}.enabled: false, so that OSMO ignores every pod template in Helm values.",
        "Switch it on (helm upgrade --set ${local.configuration_path}.enabled=true moves all of OSMO's configuration there: see OSMO's upgrade guide first), take osmo_release_values again and apply.",
        "On OSMO 6.2 and 6.3 osmo_config_mode = \"api\" writes to OSMO's database instead.",
      ])
    },
    {
      when = local.from_values && local.writes_values && try(local.configuration.snapshot, null) != null
      say = join(" ", [
        "The release has ${local.configuration_path}.snapshot, which replaces every other value of ${local.configuration_path}, pod templates too, so that OSMO ignores what this module writes.",
        "Move the snapshot's content into ${local.configuration_path}, set ${local.configuration_path}.snapshot to null, take osmo_release_values again and apply.",
      ])
    },
    {
      when = local.from_values && !can(keys(local.templates[var.pod_template_name]))
      say = join(" ", [
        "The release's values have no pod template ${var.pod_template_name}; they have ${try(join(", ", keys(local.templates)), "none")}.",
        "Set pod_template_name to the one that every pool lists in common_pod_template, for example \"default_user\".",
      ])
    },
    {
      when = (
        (try(local.base.spec, null) == null ? false : !can(keys(local.base.spec))) ||
        (try(local.base.spec.containers, null) == null ? false : can(keys(local.base.spec.containers)) || !can(length(local.base.spec.containers)) || can(tostring(local.base.spec.containers)))
      )
      say = "The pod template ${var.pod_template_name} of the base is none: spec is a map and spec.containers a list, for example { spec = { containers = [{ name = \"{{USER_CONTAINER_NAME}}\" }] } }."
    },
    {
      when = local.writes_values && !local.from_values && var.base_pod_template == null && !(var.accept_stock_template && var.pod_template_name == "default_user")
      say = join(" ", [
        "No base was given. The overlay replaces the containers of ${var.pod_template_name}, so that resources and mounts of your own would be lost.",
        "Give osmo_release_values (${local.take_values}) or base_pod_template; or, for a release with OSMO's stock default_user, set accept_stock_template = true.",
      ])
    },
  ]
  base_problem = try([for problem in local.base_problems : problem.say if problem.when][0], "")
}
