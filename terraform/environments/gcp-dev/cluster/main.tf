# Development: one zone, one decoder machine that goes away when idle, vision on its GPUs, nothing kept twice.

module "cluster" {
  source = "../../../modules/gke"

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
    head       = { machine_type = "n2-standard-4", gpus = 0, min_nodes = 1, max_nodes = 2, disk_gb = 100 }
    gateway    = { machine_type = "n2-standard-4", gpus = 0, min_nodes = 1, max_nodes = 2, disk_gb = 100 }
    preprocess = { machine_type = "n2-standard-8", gpus = 0, min_nodes = 1, max_nodes = 2, disk_gb = 100, spot = true }
    vision     = { machine_type = var.decoder.machine_type, gpus = 0, min_nodes = 0, max_nodes = 0, disk_gb = 100 }
    decoder    = merge(var.decoder, { disk_gb = 200 })
  }

  weights = { bucket = var.weights_bucket, prefix = "weights" }

  database          = { size = "db-custom-1-3840", storage_gb = 20, high_availability = false }
  database_password = var.database_password
  redis             = { memory_gb = 1, high_availability = false }

  budget              = var.budget
  deletion_protection = false
}
