# The cluster's outputs come as a file, not by terraform_remote_state: the manifests are rendered for
# the same file, so the two cannot differ; whoever deploys needs no access to the cluster's state; and
# a plan needs neither a cloud nor a bucket.
variable "platform_file" {
  description = "Path, from here, of the cluster's output platform as JSON."
  type        = string
}

variable "manifests_file" {
  description = "Path, from here, of what `pixtral deploy render` wrote for that platform."
  type        = string
}

variable "kubeconfig" {
  description = "The kubeconfig that the cloud's own command wrote, with a context for this cluster. Its credentials are asked for as they are needed and kept nowhere."
  type        = string
}

variable "kubeconfig_context" {
  description = "The cluster's context in it; named, so that nobody deploys to the one that happens to be current."
  type        = string
}

variable "secret_store" {
  description = "The external-secrets store of the cluster."
  type = object({
    kind = optional(string, "ClusterSecretStore")
    name = string
  })
}

variable "secrets" {
  description = "Where that store keeps each secret: names, never values."
  type = map(object({
    remote   = string
    property = optional(string)
  }))
}

variable "monitoring" {
  description = "The namespace of Prometheus and Grafana, and the folder of generated dashboards."
  type = object({
    namespace         = optional(string, "monitoring")
    dashboards_folder = optional(string)
  })
  default = {}
}
