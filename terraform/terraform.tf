terraform {
  # 1.9: a variable's validation may look at the other variables.
  # No provider is required: terraform_data and terraform_remote_state are part of
  # Terraform itself, so that `terraform init` downloads nothing (air-gapped sites).
  required_version = ">= 1.9"
}
