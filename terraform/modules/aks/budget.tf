# Who is told when the month's bill grows. Nodes and their load balancers are billed to the second
# resource group, which AKS makes: so the budget looks at both, from the subscription.
# The amount is in the subscription's billing currency: where that is not US dollars, convert it.

resource "azurerm_consumption_budget_subscription" "this" {
  name            = var.name
  subscription_id = join("/", slice(split("/", azurerm_resource_group.this.id), 0, 3))
  amount          = var.budget.monthly_usd
  time_grain      = "Monthly"

  time_period {
    start_date = formatdate("YYYY-MM-01'T'00:00:00Z", plantimestamp())
  }

  filter {
    dimension {
      name   = "ResourceGroupName"
      values = [azurerm_resource_group.this.name, azurerm_kubernetes_cluster.this.node_resource_group]
    }
  }

  dynamic "notification" {
    for_each = toset(var.budget.thresholds)
    content {
      threshold      = notification.value * 100 # per cent
      threshold_type = "Actual"
      operator       = "GreaterThanOrEqualTo"
      contact_emails = var.budget.emails
    }
  }

  # Before the money is spent.
  notification {
    threshold      = 100
    threshold_type = "Forecasted"
    operator       = "GreaterThanOrEqualTo"
    contact_emails = var.budget.emails
  }

  lifecycle {
    ignore_changes = [time_period] # the month in which it was made
  }
}
