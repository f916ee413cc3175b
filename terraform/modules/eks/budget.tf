# The account's whole bill. A filter by tag would see nothing until somebody activates the tag for
# billing, and an alert that watches nothing is worse than one that comes early: give each
# environment an account of its own.

resource "aws_budgets_budget" "monthly" {
  name         = var.name
  budget_type  = "COST"
  time_unit    = "MONTHLY"
  limit_amount = tostring(var.budget.monthly_usd)
  limit_unit   = "USD"
  tags         = local.tags

  dynamic "notification" {
    for_each = toset([for share in var.budget.thresholds : tostring(share)])
    content {
      notification_type          = "ACTUAL"
      comparison_operator        = "GREATER_THAN"
      threshold                  = tonumber(notification.value) * 100
      threshold_type             = "PERCENTAGE"
      subscriber_email_addresses = var.budget.emails
    }
  }

  # Early enough to do something about it.
  notification {
    notification_type          = "FORECASTED"
    comparison_operator        = "GREATER_THAN"
    threshold                  = 100
    threshold_type             = "PERCENTAGE"
    subscriber_email_addresses = var.budget.emails
  }
}
