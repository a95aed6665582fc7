# Where the release's pod templates come from: the chart's defaults, the operator's values files, or the release itself.
# main.values_merge.tf makes one of several.

locals {
  helm_path = split(".", var.helm_values_path)

  # OSMO's stock templates, which are also the chart's defaults (src/service/core/config/objects.py in OSMO 6.3).
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

  # An empty file, or one of comments only, is no YAML document to Terraform and no values to Helm.
  values_documents = [
    for path in var.osmo_values_files :
    length(local.values_judged[path]) == 0 || length(local.values_findings) > 0 ? "{}" : jsonencode(yamldecode(local.values_text[path]))
  ]
  release_document = var.osmo_release_values == null ? "{}" : jsonencode(jsondecode(file(var.osmo_release_values)))

  # Each source's pod templates as JSON, "null" where it has none. try: a key that is absent anywhere on the path.
  values_templates = [
    for document in concat(local.values_documents, [local.release_document]) : (
      length(local.helm_path) == 1 ? jsonencode(try(jsondecode(document)[local.helm_path[0]], null)) :
      length(local.helm_path) == 2 ? jsonencode(try(jsondecode(document)[local.helm_path[0]][local.helm_path[1]], null)) :
      length(local.helm_path) == 3 ? jsonencode(try(jsondecode(document)[local.helm_path[0]][local.helm_path[1]][local.helm_path[2]], null)) :
      length(local.helm_path) == 4 ? jsonencode(try(jsondecode(document)[local.helm_path[0]][local.helm_path[1]][local.helm_path[2]][local.helm_path[3]], null)) :
      jsonencode(try(jsondecode(document)[local.helm_path[0]][local.helm_path[1]][local.helm_path[2]][local.helm_path[3]][local.helm_path[4]], null))
    )
  ]
  release_templates = local.values_templates[length(local.values_templates) - 1]

  # A release's values already hold the chart's defaults; the files alone lie on top of them.
  merge_sources = (
    var.osmo_release_values != null ? [local.release_templates] :
    concat([jsonencode(local.stock_templates)], [for text in slice(local.values_templates, 0, length(local.values_documents)) : text if text != "null"])
  )
}
