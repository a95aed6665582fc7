terraform {
  # From 1.9 on, a variable's validation may read other variables. No provider is required: terraform_data and
  # terraform_remote_state are part of Terraform itself. So `terraform init` downloads nothing, which matters at
  # air-gapped sites.
  required_version = ">= 1.9"
}
