# What Ray's head must not forget (GCS fault tolerance): Memorystore for Valkey, which speaks Redis.
#
# Not google_redis_instance: with AUTH on, that resource puts the password into the state. Here it is a
# token that the operator makes afterwards and that Terraform never reads:
# https://cloud.google.com/memorystore/docs/valkey/manage-basic-auth. Until then nobody gets in.

locals {
  # https://cloud.google.com/memorystore/docs/valkey/instance-node-specification: the smallest that has
  # the memory. shared-core-nano carries no promise of availability.
  redis_node_type = (
    var.redis.memory_gb <= 1 && !var.redis.high_availability ? "SHARED_CORE_NANO" :
    var.redis.memory_gb <= 6 ? "STANDARD_SMALL" :
    var.redis.memory_gb <= 13 ? "HIGHMEM_MEDIUM" : "HIGHMEM_XLARGE"
  )

  # With a replica there is a second connection, for reading only.
  redis_connections = flatten([
    for endpoint in google_memorystore_instance.gcs.endpoints : [for each in endpoint.connections : each.psc_auto_connection]
  ])
  redis = {
    host = one([for each in local.redis_connections : each.ip_address if each.connection_type == "CONNECTION_TYPE_PRIMARY"])
    port = 6379
    tls  = true
    # The instance's own authority: certificates, nothing secret. Google renews them in time, so render
    # again (`pixtral deploy render`) when a plan shows new ones.
    ca = join("\n", flatten(google_memorystore_instance.gcs.managed_server_ca[*].ca_certs[*].certificates))
  }
}

# Lets Memorystore put its endpoint into the network.
resource "google_network_connectivity_service_connection_policy" "redis" {
  name          = "${var.name}-redis"
  location      = var.location
  network       = google_compute_network.this.id
  service_class = "gcp-memorystore"
  labels        = var.labels

  psc_config {
    subnetworks = [google_compute_subnetwork.endpoints.id]
  }
}

resource "google_memorystore_instance" "gcs" {
  instance_id                 = "${var.name}-gcs"
  location                    = var.location
  engine_version              = "VALKEY_8_0"
  mode                        = "CLUSTER_DISABLED"
  shard_count                 = 1
  replica_count               = var.redis.high_availability ? 1 : 0
  node_type                   = local.redis_node_type
  authorization_mode          = "TOKEN_AUTH"
  transit_encryption_mode     = "SERVER_AUTHENTICATION"
  deletion_protection_enabled = var.deletion_protection
  labels                      = var.labels

  # Losing a second of it costs a restart of the head, losing all of it a restart of everything.
  persistence_config {
    mode = "AOF"
    aof_config {
      append_fsync = "EVERY_SEC"
    }
  }

  # Without a replica it belongs beside the head.
  zone_distribution_config {
    mode = var.redis.high_availability ? "MULTI_ZONE" : "SINGLE_ZONE"
    zone = var.redis.high_availability ? null : var.zones[0]
  }

  desired_auto_created_endpoints {
    network    = google_compute_network.this.id
    project_id = local.project
  }

  depends_on = [google_network_connectivity_service_connection_policy.redis]
}
