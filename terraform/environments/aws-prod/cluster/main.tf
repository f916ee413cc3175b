# Production: decoders always there, vision on small GPUs of its own, ledger and Ray's state kept twice.

module "cluster" {
  source = "../../../modules/eks"

  name               = "pixtral-prod"
  location           = var.location
  zones              = var.zones
  labels             = { system = "pixtral", environment = "prod" }
  kubernetes_version = var.kubernetes_version

  network = {
    cidr             = "10.30.0.0/16"
    pods_cidr        = "100.65.0.0/16"
    services_cidr    = "172.20.0.0/16"
    authorised_cidrs = var.authorised_cidrs
  }

  max_gpu_nodes = 8
  tiers = {
    head       = { machine_type = "m7i.2xlarge", gpus = 0, min_nodes = 2, max_nodes = 3, disk_gb = 100 }
    gateway    = { machine_type = "m7i.xlarge", gpus = 0, min_nodes = 2, max_nodes = 6, disk_gb = 100 }
    preprocess = { machine_type = "m7i.4xlarge", gpus = 0, min_nodes = 2, max_nodes = 8, disk_gb = 100 }
    vision     = merge(var.vision, { disk_gb = 200 })
    decoder    = merge(var.decoder, { disk_gb = 200 })
  }

  weights = { bucket = var.weights_bucket, prefix = "weights" }

  # No database_password: RDS makes it.
  database = { size = "db.m7g.large", storage_gb = 100, high_availability = true }
  redis    = { memory_gb = 3, high_availability = true }

  budget              = var.budget
  deletion_protection = true
}
