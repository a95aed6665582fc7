# What a plan decides, without applying anything. Run: terraform test

run "off_without_a_workspace" {
  command = plan

  assert {
    condition     = !output.mirror_enabled && length(output.azureml_env) == 0
    error_message = "With no workspace the mirror must be off."
  }
  assert {
    condition     = startswith(output.mirror_reason, "The mirror is off because azureml_workspace is null")
    error_message = "mirror_reason must say why."
  }
}

run "off_by_the_toggle" {
  command = plan

  variables {
    should_enable_azureml_mirror = false
    azureml_workspace            = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-robots/providers/Microsoft.MachineLearningServices/workspaces/mlw-robots" }
    helm_values_file             = "overlay.yaml"
  }

  assert {
    condition     = !output.mirror_enabled && length(terraform_data.values_file) == 0 && length(terraform_data.values_file_off) == 0
    error_message = "Toggled off, nothing may be planned."
  }
}

run "on_with_a_workspace" {
  command = plan

  variables {
    azureml_workspace = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourcegroups/rg-robots/providers/microsoft.machinelearningservices/workspaces/mlw-robots" }
    base_pod_template = {
      metadata = { labels = { "azure.workload.identity/use" = "true" } }
      spec     = { serviceAccountName = "osmo-workflow" }
    }
  }

  assert {
    condition = output.azureml_env == tomap({
      AZURE_SUBSCRIPTION_ID  = "00000000-0000-0000-0000-000000000001"
      AZURE_RESOURCE_GROUP   = "rg-robots"
      AZUREML_WORKSPACE_NAME = "mlw-robots"
    })
    error_message = "The coordinates come from the id, whatever its case."
  }
  assert {
    condition     = [for variable in output.pod_template.spec.containers[0].env : variable.name] == ["AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZUREML_WORKSPACE_NAME", "OSMO_WORKFLOW_ID"]
    error_message = "A template with no user container gets one, with the variables in their order."
  }
  assert {
    condition     = yamldecode(output.helm_values).services.configs.podTemplates.default_user.spec.containers == output.pod_template.spec.containers
    error_message = "The overlay repeats the list of containers."
  }
}

run "a_malformed_id" {
  command = plan

  variables {
    azureml_workspace = { id = "mlw-robots" }
  }

  expect_failures = [var.azureml_workspace]
}

run "a_workspace_with_no_base_is_refused" {
  command = plan

  variables {
    azureml_workspace = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-robots/providers/Microsoft.MachineLearningServices/workspaces/mlw-robots" }
  }

  expect_failures = [output.pod_template]
}

run "the_stock_template_has_no_identity_and_is_warned_of" {
  command = plan

  variables {
    azureml_workspace     = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-robots/providers/Microsoft.MachineLearningServices/workspaces/mlw-robots" }
    accept_stock_template = true
  }

  expect_failures = [check.workload_identity]
}

run "what_does_not_go_together" {
  command = plan

  variables {
    osmo_config_mode = "api"
    helm_values_file = "overlay.yaml"
    helm_release     = { name = "osmo", namespace = "osmo", chart = "osmo/service" }
    extra_env        = { AZURE_RESOURCE_GROUP = "rg" }
  }

  expect_failures = [var.helm_values_file, var.helm_release, var.extra_env]
}
