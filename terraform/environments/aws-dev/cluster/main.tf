# Development: one decoder machine that goes away when idle, vision on its GPUs, nothing kept twice.

module "cluster" {
  source = "../../../modules/eks"

  name               = "pixtral-dev"
  location           = var.location
  zones              = var.zones
  labels             = { system = "pixtral", environment = "dev" }
  kubernetes_version = var.kubernetes_version

  network = {
    cidr             = "10.20.0.0/16"
    pods_cidr        = "100.64.0.0/16"
    services_cidr    = "172.20.0.0/16"
    authorised_cidrs = var.authorised_cidrs
  }

  max_gpu_nodes = 2
  tiers = {
    head       = { machine_type = "m7i.xlarge", gpus = 0, min_nodes = 1, max_nodes = 2, disk_gb = 100 }
    gateway    = { machine_type = "m7i.xlarge", gpus = 0, min_nodes = 1, max_nodes = 2, disk_gb = 100 }
    preprocess = { machine_type = "m7i.2xlarge", gpus = 0, min_nodes = 1, max_nodes = 2, disk_gb = 100, spot = true }
    vision     = { machine_type = var.decoder.machine_type, gpus = 0, min_nodes = 0, max_nodes = 0, disk_gb = 200 }
    decoder    = merge(var.decoder, { disk_gb = 200 })
  }

  weights = { bucket = var.weights_bucket, prefix = "weights" }

  # No database_password: RDS makes it.
  database = { size = "db.t4g.medium", storage_gb = 20, high_availability = false }
  redis    = { memory_gb = 1, high_availability = false }

  budget              = var.budget
  deletion_protection = false
}
