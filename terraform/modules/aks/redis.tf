# What Ray's head must not forget (GCS fault tolerance): Azure Managed Redis. Whoever can write here
# can run code in the cluster: only head nodes reach it (network.tf), only by TLS.
#
# Deployed by a template of Azure's own and not by azurerm_managed_redis: Ray logs in with a password
# and cannot renew Entra's tokens, so access keys are on, and that resource would read them back into
# the state. A template's state holds the template and what its outputs say, which is a name. The
# operator hands the key from `az redisenterprise database list-keys` to the secret store (README.md).

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

locals {
  redis_name = "${var.name}-gcs"
  redis_type = "Microsoft.Cache/redisEnterprise"
  redis_id   = "${azurerm_resource_group.this.id}/providers/${local.redis_type}/${local.redis_name}"
  redis_api  = "2025-07-01"

  redis_template = {
    "$schema"      = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
    contentVersion = "1.0.0.0"
    resources = [
      {
        type       = local.redis_type
        apiVersion = local.redis_api
        name       = local.redis_name
        location   = var.location
        tags       = local.tags
        sku        = { name = local.redis_sku }
        properties = {
          highAvailability    = var.redis.high_availability ? "Enabled" : "Disabled"
          minimumTlsVersion   = "1.2"
          publicNetworkAccess = "Disabled"
        }
      },
      # Nothing may be evicted. Losing a second of it costs a restart of the head, losing all of it a
      # restart of everything.
      {
        type       = "${local.redis_type}/databases"
        apiVersion = local.redis_api
        name       = "${local.redis_name}/default"
        dependsOn  = ["[resourceId('${local.redis_type}', '${local.redis_name}')]"]
        properties = {
          port                     = local.redis_port
          clientProtocol           = "Encrypted"
          clusteringPolicy         = "NoCluster" # Ray wants one plain server
          evictionPolicy           = "NoEviction"
          accessKeysAuthentication = "Enabled"
          persistence              = { aofEnabled = true, aofFrequency = "1s" }
        }
      },
    ]
    outputs = {
      host = { type = "string", value = "[reference(resourceId('${local.redis_type}', '${local.redis_name}'), '${local.redis_api}').hostName]" }
    }
  }
}

resource "azurerm_resource_group_template_deployment" "redis" {
  name                = local.redis_name
  resource_group_name = azurerm_resource_group.this.name
  deployment_mode     = "Incremental"
  template_content    = jsonencode(local.redis_template)
  tags                = local.tags
}

resource "azurerm_private_endpoint" "redis" {
  name                = "${var.name}-redis"
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  subnet_id           = azurerm_subnet.this["endpoints"].id
  tags                = local.tags

  private_service_connection {
    name                           = "${var.name}-redis"
    private_connection_resource_id = local.redis_id
    subresource_names              = ["redisEnterprise"]
    is_manual_connection           = false
  }
  private_dns_zone_group {
    name                 = "redis"
    private_dns_zone_ids = [azurerm_private_dns_zone.this["redis"].id]
  }

  depends_on = [azurerm_resource_group_template_deployment.redis]
}
