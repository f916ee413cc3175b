# The same variables in modules/gke, modules/eks and modules/aks; only the cloud's own words differ
# (machine types, database sizes). A test compares names and types.

variable "name" {
  description = "Prefix of everything that is made here."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name))
    error_message = "name must be 2 to 24 lower-case letters, digits and dashes, a letter first and no dash last."
  }
}

variable "location" {
  description = "The region."
  type        = string
  nullable    = false
}

variable "zones" {
  description = "Where nodes may stand. GPU capacity is zonal: one zone that has it beats three that have not."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.zones) > 0 && length(distinct(var.zones)) == length(var.zones)
    error_message = "zones must name at least one zone, and none twice."
  }
  validation {
    condition     = alltrue([for zone in var.zones : contains(["1", "2", "3"], zone)])
    error_message = "Azure's zones are named 1, 2 and 3."
  }
}

variable "labels" {
  description = "On everything that can carry them, for splitting the bill."
  type        = map(string)
  nullable    = false
}

variable "network" {
  description = "Address ranges. authorised_cidrs: who may reach the private control plane; empty means from inside the network only."
  type = object({
    cidr             = string
    pods_cidr        = string
    services_cidr    = string
    authorised_cidrs = list(string)
  })
  nullable = false

  validation {
    condition = alltrue([
      for cidr in concat([var.network.cidr, var.network.pods_cidr, var.network.services_cidr], var.network.authorised_cidrs) : can(cidrhost(cidr, 0))
    ])
    error_message = "network holds something that is no address range such as 10.20.0.0/16."
  }
  validation {
    condition     = alltrue([for cidr in var.network.authorised_cidrs : !endswith(cidr, "/0")])
    error_message = "network.authorised_cidrs must not let in the whole internet (0.0.0.0/0 or ::/0)."
  }
  validation {
    condition     = try(tonumber(split("/", var.network.cidr)[1]), 0) >= 12 && try(tonumber(split("/", var.network.cidr)[1]), 32) <= 20
    error_message = "network.cidr must be between a /12 and a /20: nodes, control plane, gateway and managed services share it."
  }
}

variable "tiers" {
  description = "A pool of nodes for each tier. vision with gpus = 0 and max_nodes = 0 shares the decoder's GPUs."
  type = map(object({
    machine_type = string
    gpus         = number
    min_nodes    = number
    max_nodes    = number
    spot         = optional(bool, false)
    disk_gb      = number
    reservation  = optional(string)
  }))
  nullable = false

  validation {
    condition     = join(" ", sort(keys(var.tiers))) == "decoder gateway head preprocess vision"
    error_message = "tiers must be exactly head, gateway, preprocess, vision and decoder."
  }
  validation {
    condition     = alltrue([for tier in var.tiers : contains(keys(local.machines), tier.machine_type)])
    error_message = "tiers names a machine type that this module does not know. It knows: ${join(", ", keys(local.machines))}."
  }
  validation {
    condition = alltrue([
      for tier in var.tiers : tier.gpus == try(local.machines[tier.machine_type].gpus, 0) || (tier.gpus == 0 && tier.max_nodes == 0)
    ])
    error_message = "tiers.*.gpus must be the number of GPUs that the machine type has."
  }
  validation {
    condition = alltrue([
      for name in ["head", "gateway", "preprocess"] : try(var.tiers[name].gpus, 0) == 0 && try(var.tiers[name].min_nodes, 1) >= 1
    ])
    error_message = "head, gateway and preprocess must have gpus = 0 and min_nodes of at least 1."
  }
  validation {
    condition     = try(var.tiers.decoder.max_nodes > 0 && local.machines[var.tiers.decoder.machine_type].groups > 0, true)
    error_message = "decoder needs max_nodes of at least 1 and a machine that holds a whole tensor-parallel group."
  }
  validation {
    condition     = try(var.tiers.vision.max_nodes == 0 || var.tiers.vision.gpus > 0, true)
    error_message = "vision needs GPUs of its own, or gpus = 0 and max_nodes = 0 to share the decoder's."
  }
  validation {
    condition = alltrue([
      for tier in var.tiers : tier.min_nodes >= 0 && tier.min_nodes <= tier.max_nodes && floor(tier.max_nodes) == tier.max_nodes && floor(tier.min_nodes) == tier.min_nodes
    ])
    error_message = "tiers.*.min_nodes must be a whole number between 0 and max_nodes."
  }
  validation {
    condition     = alltrue([for tier in var.tiers : tier.max_nodes <= 64])
    error_message = "tiers.*.max_nodes must not exceed 64: a pool without a bound is a bill without one."
  }
  validation {
    condition     = alltrue([for tier in var.tiers : tier.reservation == null ? true : startswith(tier.reservation, "/subscriptions/")])
    error_message = "tiers.*.reservation must be the id of a capacity reservation group: /subscriptions/…"
  }
  validation {
    condition     = try(!var.tiers.decoder.spot && !var.tiers.head.spot, true)
    error_message = "decoder and head must not be spot: a reclaimed node kills the streams of everybody on it."
  }
}

variable "max_gpu_nodes" {
  description = "The most GPU nodes that may ever run at once, all pools together."
  type        = number
  nullable    = false

  validation {
    condition     = var.max_gpu_nodes >= 1 && var.max_gpu_nodes <= 32
    error_message = "max_gpu_nodes must be between 1 and 32."
  }
  validation {
    condition     = sum([for tier in var.tiers : tier.gpus > 0 ? tier.max_nodes : 0]) <= var.max_gpu_nodes
    error_message = "The max_nodes of the GPU tiers together must not exceed max_gpu_nodes."
  }
}

variable "kubernetes_version" {
  description = "Minor version, such as 1.33."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "kubernetes_version must be a minor version such as 1.33."
  }
}

variable "weights" {
  description = "The storage account (bucket) that is made for the model's weights, and the folder in its container."
  type = object({
    bucket = string
    prefix = string
  })
  nullable = false

  validation {
    condition     = can(regex("^[a-z0-9]{3,24}$", var.weights.bucket))
    error_message = "weights.bucket names a storage account: 3 to 24 lower-case letters and digits."
  }
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9._/-]*[a-z0-9]$", lower(var.weights.prefix)))
    error_message = "weights.prefix must be a folder without a leading or trailing slash."
  }
}

variable "database" {
  description = "PostgreSQL for the ledger; size in the cloud's own words."
  type = object({
    size              = string
    storage_gb        = number
    high_availability = bool
  })
  nullable = false

  validation {
    condition     = can(regex("^(B|GP|MO)_Standard_[A-Za-z0-9_]+$", var.database.size))
    error_message = "database.size must be a flexible server's, such as GP_Standard_D2ds_v5."
  }
  validation {
    condition     = !(var.database.high_availability && startswith(var.database.size, "B_"))
    error_message = "database.high_availability needs a GP or MO size: Azure keeps no standby for burstable (B) ones."
  }
  validation {
    condition     = contains([32, 64, 128, 256, 512, 1024, 2048, 4096], var.database.storage_gb)
    error_message = "database.storage_gb must be one of 32, 64, 128, 256, 512, 1024, 2048 and 4096."
  }
}

variable "database_password" {
  description = "Of the ledger's user. Handed through to the database once and kept nowhere: neither in a plan nor in the state."
  type        = string
  ephemeral   = true
  sensitive   = true
  default     = null

  validation {
    condition     = var.database_password == null ? true : length(var.database_password) >= 24
    error_message = "database_password must have 24 characters or more."
  }
}

variable "redis" {
  description = "Where Ray's head keeps what it must not forget (GCS fault tolerance)."
  type = object({
    memory_gb         = number
    high_availability = bool
  })
  nullable = false

  validation {
    condition     = var.redis.memory_gb >= 1 && var.redis.memory_gb <= 24
    error_message = "redis.memory_gb must be between 1 and 24."
  }
}

variable "budget" {
  description = "Who is told when the month's bill passes which share (1.0 is all) of the budget."
  type = object({
    monthly_usd = number
    emails      = list(string)
    thresholds  = list(number)
  })
  nullable = false

  validation {
    condition     = var.budget.monthly_usd > 0 && length(var.budget.thresholds) > 0 && alltrue([for share in var.budget.thresholds : share > 0 && share <= 2])
    error_message = "budget needs monthly_usd above 0 and thresholds between 0 and 2, such as 0.5, 0.9 and 1."
  }
  validation {
    condition     = length(var.budget.thresholds) <= 4
    error_message = "budget.thresholds must be 4 at most: Azure sends 5 notices a budget, and one is for the forecast."
  }
  validation {
    condition     = length(var.budget.emails) > 0 && alltrue([for email in var.budget.emails : can(regex("^[^@ ]+@[^@ ]+$", email))])
    error_message = "budget.emails must hold at least one address: an alert that nobody gets is none."
  }
}

variable "deletion_protection" {
  description = "Refuse to delete the cluster, the database and the storage account. On wherever anybody depends on them."
  type        = bool
  nullable    = false
}
