# Production: two zones, vision on GPUs of its own, everything that holds state kept twice and protected.

module "cluster" {
  source = "../../../modules/gke"

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

  max_gpu_nodes = 12
  tiers = {
    head       = { machine_type = "n2-standard-8", gpus = 0, min_nodes = 2, max_nodes = 3, disk_gb = 100 }
    gateway    = { machine_type = "n2-standard-8", gpus = 0, min_nodes = 2, max_nodes = 6, disk_gb = 100 }
    preprocess = { machine_type = "n2-standard-16", gpus = 0, min_nodes = 2, max_nodes = 6, disk_gb = 100 }
    vision     = { machine_type = "g2-standard-8", gpus = 1, min_nodes = 1, max_nodes = 4, disk_gb = 100 }
    decoder    = merge(var.decoder, { disk_gb = 200 })
  }

  weights = { bucket = var.weights_bucket, prefix = "weights" }

  database          = { size = "db-custom-4-15360", storage_gb = 100, high_availability = true }
  database_password = var.database_password
  redis             = { memory_gb = 5, high_availability = true }

  budget              = var.budget
  deletion_protection = true
}
