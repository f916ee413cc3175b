variable "platform_file" {
  description = "What the cluster's state printed: terraform output -json platform > platform.json. The same file that the manifests were rendered for."
  type        = string
  nullable    = false

  validation {
    condition = try(alltrue([
      for key in ["cloud", "cluster", "namespace", "service_accounts", "pools", "ingress", "gpu_nodes_max"] : contains(keys(jsondecode(file(var.platform_file))), key)
    ]), false)
    error_message = "platform_file must hold the cluster's output platform, as JSON."
  }
}

variable "manifests_file" {
  description = "What `pixtral deploy render --platform platform.json` wrote."
  type        = string
  nullable    = false

  validation {
    condition     = try(length(regexall("(?m)^kind: RayService$", file(var.manifests_file))), 0) == 1
    error_message = "manifests_file must hold one RayService: write it with `pixtral deploy render`."
  }
}

variable "kuberay_version" {
  description = "Of the operator's chart. The manifests are checked against this version's definitions, so it moves with them."
  type        = string
  default     = "1.7.0"
  nullable    = false

  validation {
    condition     = can(regex("^[0-9]+\\.[0-9]+\\.[0-9]+$", var.kuberay_version))
    error_message = "kuberay_version must be exact, such as 1.7.0."
  }
}

variable "secret_store" {
  description = "The external-secrets store of this cluster. Its controller is the platform team's; values never pass through Terraform."
  type = object({
    kind = optional(string, "ClusterSecretStore")
    name = string
  })
  nullable = false

  validation {
    condition     = contains(["ClusterSecretStore", "SecretStore"], var.secret_store.kind) && length(var.secret_store.name) > 0
    error_message = "secret_store must name a ClusterSecretStore or a SecretStore."
  }
}

variable "secrets" {
  description = "Where the store keeps each secret. property: of a secret that is JSON, such as a managed database's password."
  type = map(object({
    remote   = string
    property = optional(string)
  }))
  nullable = false

  validation {
    condition = join(" ", sort(keys(var.secrets))) == join(" ", sort([
      "pixtral-bootstrap-key", "pixtral-database", "pixtral-metrics", "pixtral-pepper", "pixtral-ray-token", "pixtral-redis",
    ]))
    error_message = "secrets must tell of pixtral-bootstrap-key, pixtral-database, pixtral-metrics, pixtral-pepper, pixtral-ray-token and pixtral-redis."
  }
  validation {
    condition     = alltrue([for secret in var.secrets : can(regex("^[A-Za-z0-9/_.:-]{1,512}$", secret.remote))])
    error_message = "secrets.*.remote must be a name in the store, not a value."
  }
}

variable "monitoring" {
  description = "The namespace of Prometheus and Grafana, which the fences let in, and the folder of generated dashboards; null leaves them out."
  type = object({
    namespace         = optional(string, "monitoring")
    dashboards_folder = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.monitoring.namespace == "monitoring"
    error_message = "monitoring.namespace must be monitoring: the rendered network policies let that one in."
  }
}

variable "deletion_protection" {
  description = "Refuse to destroy the release while anybody depends on it."
  type        = bool
  nullable    = false
}
