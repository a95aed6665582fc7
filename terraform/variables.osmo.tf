variable "osmo_config_mode" {
  description = "Where OSMO's configuration is stored: `configmap` (Helm values; 6.3 and later) or `api` (OSMO's database; 6.2, or 6.3 without the config map). OSMO 6.4 removes the API that `api` writes with; use `configmap` there."
  type        = string
  default     = "configmap"
  nullable    = false

  validation {
    condition     = contains(["configmap", "api"], var.osmo_config_mode)
    error_message = "osmo_config_mode is \"configmap\" (Helm values hold OSMO's configuration, 6.3 and later) or \"api\" (the database holds it, 6.2 and 6.3), for example osmo_config_mode = \"configmap\"."
  }
}

variable "pod_template_name" {
  description = "The OSMO pod template that gets the variables."
  type        = string
  default     = "default_user"
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9_-]*$", var.pod_template_name)) && var.pod_template_name != "azureml_mirror_outputs"
    error_message = "pod_template_name is the name of an OSMO pod template (letters, digits, _ and -; not azureml_mirror_outputs, which the module writes itself), for example \"default_user\"."
  }
}

variable "osmo_cli" {
  description = "api mode: the operator's `osmo` program, logged in. A name on PATH or a path."
  type        = string
  default     = "osmo"
  nullable    = false

  validation {
    condition     = length(trimspace(var.osmo_cli)) > 0
    error_message = "osmo_cli is empty. Give the program's name or path, for example \"osmo\" or \"/opt/osmo/bin/osmo\"."
  }
}

variable "python" {
  description = "The Python (3.11 or newer, standard library only) that runs the api-mode script. A name on PATH or a path."
  type        = string
  default     = "python3"
  nullable    = false

  validation {
    condition     = length(trimspace(var.python)) > 0
    error_message = "python is empty. Give the interpreter's name or path, for example \"python3\"."
  }
}

variable "overwrite_existing" {
  description = "api mode: whether to overwrite a variable of the same name that somebody else set. Removing the mirror restores it. If `false`, the apply stops and names the variable."
  type        = bool
  default     = false
  nullable    = false
}
