# What every test begins with; a run overrides what it is about.
name               = "pixtral-test"
location           = "us-central1"
zones              = ["us-central1-a", "us-central1-c"]
labels             = { system = "pixtral" }
kubernetes_version = "1.34"

network = {
  cidr             = "10.20.0.0/16"
  pods_cidr        = "10.24.0.0/14"
  services_cidr    = "10.21.0.0/20"
  authorised_cidrs = ["10.200.0.0/24"]
}

tiers = {
  head       = { machine_type = "n2-standard-8", gpus = 0, min_nodes = 1, max_nodes = 2, disk_gb = 100 }
  gateway    = { machine_type = "n2-standard-8", gpus = 0, min_nodes = 1, max_nodes = 4, disk_gb = 100 }
  preprocess = { machine_type = "n2-standard-16", gpus = 0, min_nodes = 1, max_nodes = 4, disk_gb = 100, spot = true }
  vision     = { machine_type = "g2-standard-8", gpus = 1, min_nodes = 0, max_nodes = 4, disk_gb = 100 }
  decoder    = { machine_type = "a2-ultragpu-4g", gpus = 4, min_nodes = 1, max_nodes = 4, disk_gb = 200 }
}
max_gpu_nodes = 8

weights             = { bucket = "test-weights", prefix = "weights" }
database            = { size = "db-custom-2-7680", storage_gb = 20, high_availability = false }
redis               = { memory_gb = 5, high_availability = true }
budget              = { monthly_usd = 1000, emails = ["oncall@example.com"], thresholds = [0.5, 1] }
deletion_protection = true
