# Development: one zone, one decoder machine that goes away when idle, vision on its GPUs, nothing kept
# twice. Standard_NC96ads_A100_v4 is half the machine of production's, and slower for its size: its GPUs
# meet over PCIe. Speeds measured here say nothing about production.

module "cluster" {
  source = "../../../modules/aks"

  name               = "pixtral-dev"
  location           = var.location
  zones              = var.zones
  labels             = { system = "pixtral", environment = "dev" }
  kubernetes_version = var.kubernetes_version

  network = {
    cidr             = "10.20.0.0/16"
    pods_cidr        = "10.24.0.0/14"
    services_cidr    = "10.21.0.0/20"
    authorised_cidrs = var.authorised_cidrs
  }

  max_gpu_nodes = 2
  tiers = {
    head       = { machine_type = "Standard_D4s_v5", gpus = 0, min_nodes = 1, max_nodes = 2, disk_gb = 128 }
    gateway    = { machine_type = "Standard_D4s_v5", gpus = 0, min_nodes = 1, max_nodes = 2, disk_gb = 128 }
    preprocess = { machine_type = "Standard_D8s_v5", gpus = 0, min_nodes = 1, max_nodes = 2, disk_gb = 128, spot = true }
    vision     = { machine_type = var.decoder.machine_type, gpus = 0, min_nodes = 0, max_nodes = 0, disk_gb = 128 }
    decoder    = merge(var.decoder, { disk_gb = 512 })
  }

  weights = { bucket = var.weights_account, prefix = "weights" }

  database          = { size = "B_Standard_B2s", storage_gb = 32, high_availability = false }
  database_password = var.database_password
  redis             = { memory_gb = 1, high_availability = false }

  budget              = var.budget
  deletion_protection = false
}
