# Every value is yours to replace.
location           = "us-east-1"
zones              = ["us-east-1d", "us-east-1b"]
kubernetes_version = "1.34"
decoder            = { min_nodes = 0, max_nodes = 1 }
weights_bucket     = "example-pixtral-dev-weights"
budget             = { monthly_usd = 3000, emails = ["pixtral-oncall@example.com"] }
