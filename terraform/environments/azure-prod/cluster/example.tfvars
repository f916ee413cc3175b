# Every value is yours to replace.
subscription_id    = "00000000-0000-0000-0000-000000000000"
location           = "eastus"
zones              = ["1", "2"]
kubernetes_version = "1.34"
authorised_cidrs   = ["10.200.0.0/24"] # the office's VPN
decoder = {
  min_nodes   = 1
  max_nodes   = 2
  reservation = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/capacity/providers/Microsoft.Compute/capacityReservationGroups/pixtral-a100"
}
weights_account = "examplepixtralprod"
budget          = { monthly_usd = 60000, emails = ["pixtral-oncall@example.com", "finance@example.com"] }
