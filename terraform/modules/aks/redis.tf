# What Ray's head must not forget (GCS fault tolerance): Azure Managed Redis. Whoever can write here
# can run code in the cluster: only head nodes reach it (network.tf), only by TLS.
#
# The one secret in the state is here. Ray logs in with a password and cannot renew Entra's tokens, so
# Azure's access keys are on, and the provider then reads them back into the state. Nothing hands them
# on: the operator takes the key from `az redisenterprise database list-keys`. Guard the state
# accordingly (README.md).

locals {
  redis_port = 10000

  # Memory in GB of the Balanced sizes, smallest first, as Azure publishes them. NoCluster ends at 25.
  redis_sizes = [
    { sku = "Balanced_B0", memory_gb = 0.5 },
    { sku = "Balanced_B1", memory_gb = 1 },
    { sku = "Balanced_B3", memory_gb = 3 },
    { sku = "Balanced_B5", memory_gb = 6 },
    { sku = "Balanced_B10", memory_gb = 12 },
    { sku = "Balanced_B20", memory_gb = 24 },
  ]
  redis_sku = [for size in local.redis_sizes : size.sku if size.memory_gb >= var.redis.memory_gb][0]
}

resource "azurerm_managed_redis" "gcs" {
  name                      = "${var.name}-gcs"
  resource_group_name       = azurerm_resource_group.this.name
  location                  = var.location
  sku_name                  = local.redis_sku
  high_availability_enabled = var.redis.high_availability
  public_network_access     = "Disabled"
  tags                      = local.tags

  # Nothing may be evicted. Losing a second of it costs a restart of the head, losing all of it a
  # restart of everything.
  default_database {
    client_protocol                               = "Encrypted"
    clustering_policy                             = "NoCluster" # Ray wants one plain server
    eviction_policy                               = "NoEviction"
    access_keys_authentication_enabled            = true
    persistence_append_only_file_backup_frequency = "1s"
  }
}

resource "azurerm_private_endpoint" "redis" {
  name                = "${var.name}-redis"
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  subnet_id           = azurerm_subnet.this["endpoints"].id
  tags                = local.tags

  private_service_connection {
    name                           = "${var.name}-redis"
    private_connection_resource_id = azurerm_managed_redis.gcs.id
    subresource_names              = ["redisEnterprise"]
    is_manual_connection           = false
  }
  private_dns_zone_group {
    name                 = "redis"
    private_dns_zone_ids = [azurerm_private_dns_zone.this["redis"].id]
  }
}
