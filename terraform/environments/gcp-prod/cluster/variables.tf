variable "project" {
  description = "The Google Cloud project. Its billing account gets the budget."
  type        = string
}

variable "location" {
  description = "The region."
  type        = string
}

variable "zones" {
  description = "Zones of that region that have the decoder's GPUs: gcloud compute machine-types list --filter=name=a2-ultragpu-4g"
  type        = list(string)
}

variable "kubernetes_version" {
  description = "The minor version to begin with; the release channel moves it on."
  type        = string
}

variable "authorised_cidrs" {
  description = "Private ranges (VPN, peered networks) that may reach the control plane; none unless listed."
  type        = list(string)
  default     = []
}

variable "decoder" {
  description = "The decoder's machines. A named reservation is the one sure way to get them."
  type = object({
    machine_type = optional(string, "a2-ultragpu-4g")
    gpus         = optional(number, 4)
    min_nodes    = number
    max_nodes    = number
    reservation  = optional(string)
  })
}

variable "weights_bucket" {
  description = "Name of the bucket to make for weights; bucket names are global."
  type        = string
}

variable "budget" {
  description = "Whom to tell, and when, about the month's bill."
  type = object({
    monthly_usd = number
    emails      = list(string)
    thresholds  = optional(list(number), [0.5, 0.8, 1])
  })
}

variable "database_password" {
  description = "Of the ledger's user, needed when it is made: export TF_VAR_database_password=… (kept in no plan and no state)."
  type        = string
  ephemeral   = true
  sensitive   = true
  default     = null
}
