# On, a change, off: with the overlay's file, which needs no other program.

variables {
  azureml_workspace = { id = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-robots/providers/Microsoft.MachineLearningServices/workspaces/mlw-robots" }
  helm_values_file  = ".terraform/tmp/overlay.yaml"
  base_pod_template = {
    metadata = { labels = { "azure.workload.identity/use" = "true" } }
    spec = {
      serviceAccountName = "osmo-workflow"
      containers = [
        {
          name      = "{{USER_CONTAINER_NAME}}"
          env       = [{ name = "MINE", value = "1" }]
          resources = { limits = { cpu = "{{USER_CPU}}" } }
        },
      ]
    }
  }
}

run "on" {
  assert {
    condition     = file(".terraform/tmp/overlay.yaml") == output.helm_values
    error_message = "The file holds the overlay."
  }
  assert {
    condition     = length(output.pod_template.spec.containers[0].env) == 5
    error_message = "Four variables beside the operator's own."
  }
}

run "a_variable_more" {
  variables {
    extra_env = { AZUREML_ARTIFACTS_DEFAULT_TIMEOUT = "1800" }
  }

  assert {
    condition     = file(".terraform/tmp/overlay.yaml") == output.helm_values && strcontains(output.helm_values, "AZUREML_ARTIFACTS_DEFAULT_TIMEOUT")
    error_message = "The file follows a change."
  }
}

run "off" {
  variables {
    should_enable_azureml_mirror = false
  }

  assert {
    condition     = yamldecode(file(".terraform/tmp/overlay.yaml")).services.configs.podTemplates.default_user.spec.containers == output.pod_template.spec.containers
    error_message = "Off writes the base's list back."
  }
  assert {
    condition     = file(".terraform/tmp/overlay.yaml") == output.helm_values && !strcontains(output.helm_values, "AZURE")
    error_message = "None of the mirror's variables stays."
  }
}
