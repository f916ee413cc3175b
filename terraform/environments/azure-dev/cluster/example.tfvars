# Every value is yours to replace.
subscription_id    = "00000000-0000-0000-0000-000000000000"
location           = "eastus"
zones              = ["1"]
kubernetes_version = "1.34"
decoder            = { min_nodes = 0, max_nodes = 1 }
weights_account    = "examplepixtraldev"
budget             = { monthly_usd = 3000, emails = ["pixtral-oncall@example.com"] }
