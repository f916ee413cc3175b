# PostgreSQL for the ledger: in a subnet of its own, encrypted connections only, restorable to any
# minute of a month.

resource "azurerm_postgresql_flexible_server" "ledger" {
  name                = "${var.name}-ledger"
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  version             = "16"
  sku_name            = var.database.size
  storage_mb          = var.database.storage_gb * 1024
  auto_grow_enabled   = true
  zone                = var.zones[0]
  tags                = local.tags

  public_network_access_enabled = false
  delegated_subnet_id           = azurerm_subnet.this["database"].id
  private_dns_zone_id           = azurerm_private_dns_zone.this["database"].id

  # The password is written through and kept nowhere, so it is needed only when the server is made. To
  # change it later: `az postgres flexible-server update --admin-password`, then the gateways' secret.
  administrator_login               = "pixtral"
  administrator_password_wo         = var.database_password
  administrator_password_wo_version = 1

  backup_retention_days        = 30
  geo_redundant_backup_enabled = false # the ledger stays in the region that the operator chose

  dynamic "high_availability" {
    for_each = var.database.high_availability ? [length(var.zones) > 1 ? "ZoneRedundant" : "SameZone"] : []
    content {
      mode                      = high_availability.value
      standby_availability_zone = var.zones[length(var.zones) > 1 ? 1 : 0]
    }
  }

  maintenance_window {
    day_of_week  = 6
    start_hour   = 2
    start_minute = 0
  }

  # After a failover the two zones have changed places; that is no reason to move back.
  lifecycle {
    ignore_changes = [zone, high_availability[0].standby_availability_zone]
  }

  depends_on = [
    azurerm_private_dns_zone_virtual_network_link.this,
    azurerm_subnet_network_security_group_association.this,
  ]
}

resource "azurerm_postgresql_flexible_server_configuration" "ledger" {
  for_each = {
    require_secure_transport   = "ON"
    ssl_min_protocol_version   = "TLSv1.2"
    log_min_duration_statement = "1000" # milliseconds
  }

  name      = each.key
  server_id = azurerm_postgresql_flexible_server.ledger.id
  value     = each.value
}

resource "azurerm_postgresql_flexible_server_database" "ledger" {
  name      = "pixtral"
  server_id = azurerm_postgresql_flexible_server.ledger.id
  charset   = "UTF8"
  collation = "en_US.utf8"
}
