# Production: two zones, vision on GPUs of its own, everything that holds state kept twice and protected.
# A decoder machine has eight GPUs and holds two groups.

module "cluster" {
  source = "../../../modules/aks"

  name               = "pixtral-prod"
  location           = var.location
  zones              = var.zones
  labels             = { system = "pixtral", environment = "prod" }
  kubernetes_version = var.kubernetes_version

  network = {
    cidr             = "10.40.0.0/16"
    pods_cidr        = "10.44.0.0/14"
    services_cidr    = "10.41.0.0/20"
    authorised_cidrs = var.authorised_cidrs
  }

  max_gpu_nodes = 8
  tiers = {
    head       = { machine_type = "Standard_D8s_v5", gpus = 0, min_nodes = 2, max_nodes = 3, disk_gb = 128 }
    gateway    = { machine_type = "Standard_D8s_v5", gpus = 0, min_nodes = 2, max_nodes = 6, disk_gb = 128 }
    preprocess = { machine_type = "Standard_D16s_v5", gpus = 0, min_nodes = 2, max_nodes = 6, disk_gb = 128 }
    vision     = { machine_type = "Standard_NV36ads_A10_v5", gpus = 1, min_nodes = 1, max_nodes = 4, disk_gb = 128 }
    decoder    = merge(var.decoder, { disk_gb = 512 })
  }

  weights = { bucket = var.weights_account, prefix = "weights" }

  database          = { size = "GP_Standard_D4ds_v5", storage_gb = 128, high_availability = true }
  database_password = var.database_password
  redis             = { memory_gb = 6, high_availability = true }

  budget              = var.budget
  deletion_protection = true
}
