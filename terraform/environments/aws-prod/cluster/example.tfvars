# Every value is yours to replace.
location           = "us-east-1"
zones              = ["us-east-1d", "us-east-1b", "us-east-1c"]
kubernetes_version = "1.34"
authorised_cidrs   = ["10.8.0.0/16"]
decoder            = { min_nodes = 1, max_nodes = 2, reservation = "cr-0123456789abcdef0" }
vision             = { min_nodes = 1, max_nodes = 4 }
weights_bucket     = "example-pixtral-prod-weights"
budget             = { monthly_usd = 60000, emails = ["pixtral-oncall@example.com", "finance@example.com"] }
