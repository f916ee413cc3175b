# What every test begins with; a run overrides what it is about.
name               = "pixtral-test"
location           = "eastus"
zones              = ["1", "2"]
labels             = { system = "pixtral" }
kubernetes_version = "1.34"

network = {
  cidr             = "10.20.0.0/16"
  pods_cidr        = "10.24.0.0/14"
  services_cidr    = "10.21.0.0/20"
  authorised_cidrs = ["10.200.0.0/24"]
}

tiers = {
  head       = { machine_type = "Standard_D8s_v5", gpus = 0, min_nodes = 1, max_nodes = 2, disk_gb = 128 }
  gateway    = { machine_type = "Standard_D8s_v5", gpus = 0, min_nodes = 1, max_nodes = 4, disk_gb = 128 }
  preprocess = { machine_type = "Standard_D16s_v5", gpus = 0, min_nodes = 1, max_nodes = 4, disk_gb = 128, spot = true }
  vision     = { machine_type = "Standard_NV36ads_A10_v5", gpus = 1, min_nodes = 0, max_nodes = 4, disk_gb = 128 }
  decoder    = { machine_type = "Standard_ND96amsr_A100_v4", gpus = 8, min_nodes = 1, max_nodes = 4, disk_gb = 256 }
}
max_gpu_nodes = 8

weights             = { bucket = "testweights", prefix = "weights" }
database            = { size = "GP_Standard_D2ds_v5", storage_gb = 32, high_availability = true }
redis               = { memory_gb = 5, high_availability = true }
budget              = { monthly_usd = 1000, emails = ["oncall@example.com"], thresholds = [0.5, 1] }
deletion_protection = true
