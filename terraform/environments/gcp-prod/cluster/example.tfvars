# Every value is yours to replace.
project            = "example-project"
location           = "us-central1"
zones              = ["us-central1-a", "us-central1-c"]
kubernetes_version = "1.34"
authorised_cidrs   = ["10.200.0.0/24"] # the office's VPN
decoder            = { min_nodes = 1, max_nodes = 4, reservation = "pixtral-a100" }
weights_bucket     = "example-project-pixtral-prod-weights"
budget             = { monthly_usd = 60000, emails = ["pixtral-oncall@example.com", "finance@example.com"] }
