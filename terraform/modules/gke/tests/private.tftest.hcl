# Nothing can be reached from outside, and what holds data is kept.

mock_provider "google" {
  source = "./tests/mocks"
}

run "nothing_is_reached_from_outside" {
  command = plan

  assert {
    condition     = google_container_cluster.this.private_cluster_config[0].enable_private_endpoint && google_container_cluster.this.private_cluster_config[0].enable_private_nodes
    error_message = "The control plane has a public address."
  }

  assert {
    condition     = toset(google_container_cluster.this.master_authorized_networks_config[0].cidr_blocks[*].cidr_block) == toset(var.network.authorised_cidrs)
    error_message = "Not those who were listed may reach the control plane."
  }

  assert {
    condition     = !google_container_cluster.this.control_plane_endpoints_config[0].dns_endpoint_config[0].allow_external_traffic
    error_message = "The control plane's DNS endpoint is open to the internet."
  }

  assert {
    condition     = google_container_cluster.this.datapath_provider == "ADVANCED_DATAPATH"
    error_message = "Network policies would not be enforced."
  }

  assert {
    condition     = length(google_compute_firewall.refuse.allow) == 0 && one(google_compute_firewall.refuse.deny).protocol == "all" && google_compute_firewall.refuse.source_ranges == toset(["0.0.0.0/0"])
    error_message = "Ingress is not refused by default."
  }

  assert {
    condition     = one(google_compute_firewall.gateway.allow).ports == tolist(["8000"]) && google_compute_firewall.gateway.source_ranges == toset(["10.20.128.0/19", "35.191.0.0/16", "130.211.0.0/22"])
    error_message = "More than the load balancer, or more than the gateway's port, is let through."
  }

  assert {
    condition     = google_compute_address.gateway.address_type == "INTERNAL"
    error_message = "The gateway's address is public."
  }

  assert {
    condition     = google_memorystore_instance.gcs.authorization_mode == "TOKEN_AUTH" && google_memorystore_instance.gcs.transit_encryption_mode == "SERVER_AUTHENTICATION"
    error_message = "Who writes into Redis runs code in Ray: it needs a token and TLS."
  }

  assert {
    condition     = google_memorystore_instance.gcs.node_type == "STANDARD_SMALL" && google_memorystore_instance.gcs.replica_count == 1
    error_message = "5 GB, kept twice."
  }
}

run "data_is_private_and_kept" {
  command = plan

  assert {
    condition     = !google_sql_database_instance.ledger.settings[0].ip_configuration[0].ipv4_enabled && google_sql_database_instance.ledger.settings[0].ip_configuration[0].ssl_mode == "ENCRYPTED_ONLY"
    error_message = "The ledger has a public address, or talks in clear."
  }

  assert {
    condition     = google_sql_database_instance.ledger.deletion_protection && google_sql_database_instance.ledger.settings[0].deletion_protection_enabled && google_sql_database_instance.ledger.settings[0].backup_configuration[0].point_in_time_recovery_enabled
    error_message = "The ledger could be lost."
  }

  assert {
    condition     = google_storage_bucket.weights.public_access_prevention == "enforced" && google_storage_bucket.weights.uniform_bucket_level_access && google_storage_bucket.weights.versioning[0].enabled && !google_storage_bucket.weights.force_destroy
    error_message = "The weights could become public, or be lost."
  }

  assert {
    condition     = keys(google_storage_bucket_iam_member.weights_reader) == ["decoder", "vision"] && alltrue([for grant in google_storage_bucket_iam_member.weights_reader : grant.role == "roles/storage.objectViewer"])
    error_message = "Only vision and decoder may read the weights, and nobody may write them."
  }

  assert {
    condition     = google_storage_bucket_iam_member.weights_reader["decoder"].member == "principal://iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/test-project.svc.id.goog/subject/ns/pixtral/sa/pixtral-decoder"
    error_message = "The grant is not for the decoder's own service account."
  }

  assert {
    condition     = google_container_cluster.this.deletion_protection && google_memorystore_instance.gcs.deletion_protection_enabled
    error_message = "deletion_protection does not reach everything."
  }

  assert {
    condition     = google_billing_budget.this.amount[0].specified_amount[0].units == "1000" && length(google_billing_budget.this.threshold_rules) == 3 && google_monitoring_notification_channel.budget["oncall@example.com"].type == "email"
    error_message = "The budget is not the one asked for, or tells nobody."
  }
}

run "nobody_authorised_means_inside_only" {
  command = plan

  variables {
    network = merge(var.network, { authorised_cidrs = [] })
  }

  assert {
    condition     = length(google_container_cluster.this.master_authorized_networks_config) == 1 && length(google_container_cluster.this.master_authorized_networks_config[0].cidr_blocks) == 0
    error_message = "Without the empty block everybody is let in."
  }
}

