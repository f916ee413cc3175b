# Every value is yours to replace.
project            = "example-project"
location           = "us-central1"
zones              = ["us-central1-a"]
kubernetes_version = "1.34"
decoder            = { min_nodes = 0, max_nodes = 1 }
weights_bucket     = "example-project-pixtral-dev-weights"
budget             = { monthly_usd = 3000, emails = ["pixtral-oncall@example.com"] }
