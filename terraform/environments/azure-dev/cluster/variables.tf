variable "subscription_id" {
  description = "The Azure subscription that everything is made in and billed to."
  type        = string
}

variable "location" {
  description = "The region."
  type        = string
}

variable "zones" {
  description = "Zones of that region that have the decoder's machines: az vm list-skus --size Standard_NC96ads_A100_v4 --zone --location …"
  type        = list(string)
}

variable "kubernetes_version" {
  description = "The minor version; patches come by themselves on Sunday nights."
  type        = string
}

variable "authorised_cidrs" {
  description = "Private ranges (VPN, peered networks) that may reach the control plane; none unless listed."
  type        = list(string)
  default     = []
}

variable "decoder" {
  description = "The decoder's machines. A capacity reservation group is the one sure way to get them."
  type = object({
    machine_type = optional(string, "Standard_NC96ads_A100_v4")
    gpus         = optional(number, 4)
    min_nodes    = number
    max_nodes    = number
    reservation  = optional(string)
  })
}

variable "weights_account" {
  description = "Name of the storage account to make for weights: 3 to 24 letters and digits; these names are global."
  type        = string
}

variable "budget" {
  description = "Whom to tell, and when, about the month's bill (in the subscription's currency)."
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
