variable "location" {
  description = "The region."
  type        = string
}

variable "zones" {
  description = "Two to four zones of that region; the first must have the decoder's GPUs: aws ec2 describe-instance-type-offerings --location-type availability-zone --filters Name=instance-type,Values=p4de.24xlarge"
  type        = list(string)
}

variable "kubernetes_version" {
  description = "The minor version. Raise it one step at a time; the control plane moves first, then the pools."
  type        = string
}

variable "authorised_cidrs" {
  description = "Private ranges (VPN, peered networks) that may reach the control plane and the gateway; none unless listed."
  type        = list(string)
  default     = []
}

variable "decoder" {
  description = "The decoder's machines. A capacity reservation (cr-…, on demand, in the first zone) is the one sure way to get them."
  type = object({
    machine_type = optional(string, "p4de.24xlarge")
    gpus         = optional(number, 8)
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
  description = "Whom to tell, and when, about the account's bill for the month."
  type = object({
    monthly_usd = number
    emails      = list(string)
    thresholds  = optional(list(number), [0.5, 0.8, 1])
  })
}
