# Mails when the month's bill for the project passes a share of the budget, and once more when it is
# foreseen to pass all of it. A budget warns; what stops spending is the bound on the pools.

resource "google_monitoring_notification_channel" "budget" {
  for_each = toset(var.budget.emails)

  display_name = "Budget of ${var.name}: ${each.key}"
  type         = "email"
  labels       = { email_address = each.key }
  user_labels  = var.labels

  depends_on = [google_project_service.needed]
}

resource "google_billing_budget" "this" {
  billing_account = data.google_project.this.billing_account
  display_name    = var.name

  budget_filter {
    projects        = ["projects/${data.google_project.this.number}"]
    calendar_period = "MONTH"
  }

  amount {
    specified_amount {
      currency_code = "USD"
      units         = tostring(floor(var.budget.monthly_usd))
    }
  }

  dynamic "threshold_rules" {
    for_each = toset(var.budget.thresholds)
    content {
      threshold_percent = threshold_rules.value
      spend_basis       = "CURRENT_SPEND"
    }
  }
  threshold_rules {
    threshold_percent = 1
    spend_basis       = "FORECASTED_SPEND"
  }

  all_updates_rule {
    monitoring_notification_channels = [for channel in google_monitoring_notification_channel.budget : channel.id]
    disable_default_iam_recipients   = false
  }
}
