# The storage account that holds the weights: read with Entra identities only, over a private endpoint
# only. `bucket` is the account's name; the container in it is always "weights".

locals {
  weights_container = "weights"
}

resource "azurerm_storage_account" "weights" {
  name                     = var.weights.bucket
  resource_group_name      = azurerm_resource_group.this.name
  location                 = var.location
  account_kind             = "StorageV2"
  account_tier             = "Standard"
  account_replication_type = length(var.zones) > 1 ? "ZRS" : "LRS" # the model can be fetched again
  tags                     = local.tags

  public_network_access_enabled     = false
  allow_nested_items_to_be_public   = false
  shared_access_key_enabled         = false
  default_to_oauth_authentication   = true
  local_user_enabled                = false
  sftp_enabled                      = false
  cross_tenant_replication_enabled  = false
  https_traffic_only_enabled        = true
  min_tls_version                   = "TLS1_2"
  infrastructure_encryption_enabled = true

  network_rules {
    default_action = "Deny"
    bypass         = ["None"]
  }

  blob_properties {
    versioning_enabled = true

    delete_retention_policy {
      days = 30
    }
    container_delete_retention_policy {
      days = 30
    }
  }
}

resource "azurerm_storage_container" "weights" {
  name                  = local.weights_container
  storage_account_id    = azurerm_storage_account.weights.id
  container_access_type = "private"
}

# Old versions of 248 GB are not kept for ever.
resource "azurerm_storage_management_policy" "weights" {
  storage_account_id = azurerm_storage_account.weights.id

  rule {
    name    = "old-versions"
    enabled = true

    filters {
      blob_types = ["blockBlob"]
    }
    actions {
      version {
        delete_after_days_since_creation = 90
      }
    }
  }
}

resource "azurerm_private_endpoint" "weights" {
  name                = "${var.name}-weights"
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  subnet_id           = azurerm_subnet.this["endpoints"].id
  tags                = local.tags

  private_service_connection {
    name                           = "${var.name}-weights"
    private_connection_resource_id = azurerm_storage_account.weights.id
    subresource_names              = ["blob"]
    is_manual_connection           = false
  }
  private_dns_zone_group {
    name                 = "weights"
    private_dns_zone_ids = [azurerm_private_dns_zone.this["weights"].id]
  }
}
