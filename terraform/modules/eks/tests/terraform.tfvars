# What every test begins with; a run overrides what it is about.
name               = "pixtral-test"
location           = "us-east-1"
zones              = ["us-east-1d", "us-east-1b"]
labels             = { system = "pixtral" }
kubernetes_version = "1.34"

network = {
  cidr             = "10.20.0.0/16"
  pods_cidr        = "100.64.0.0/16"
  services_cidr    = "172.20.0.0/16"
  authorised_cidrs = ["10.200.0.0/24"]
}

tiers = {
  head       = { machine_type = "m7i.2xlarge", gpus = 0, min_nodes = 1, max_nodes = 2, disk_gb = 100 }
  gateway    = { machine_type = "m7i.xlarge", gpus = 0, min_nodes = 1, max_nodes = 4, disk_gb = 100 }
  preprocess = { machine_type = "m7i.4xlarge", gpus = 0, min_nodes = 1, max_nodes = 4, disk_gb = 100, spot = true }
  vision     = { machine_type = "g6.2xlarge", gpus = 1, min_nodes = 0, max_nodes = 4, disk_gb = 100 }
  decoder    = { machine_type = "p4de.24xlarge", gpus = 8, min_nodes = 1, max_nodes = 2, disk_gb = 200, reservation = "cr-0123456789abcdef0" }
}
max_gpu_nodes = 8

weights             = { bucket = "test-weights", prefix = "weights" }
database_password   = null # also where the environment has one, for another cloud
database            = { size = "db.m7g.large", storage_gb = 20, high_availability = true }
redis               = { memory_gb = 3, high_availability = true }
budget              = { monthly_usd = 1000, emails = ["oncall@example.com"], thresholds = [0.5, 1] }
deletion_protection = true
