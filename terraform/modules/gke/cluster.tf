# A regional control plane that answers on a private address only. The pools are in pools.tf.

locals {
  namespace = "pixtral"
  node_tag  = "${var.name}-node"
}

resource "google_container_cluster" "this" {
  name                = var.name
  location            = var.location
  node_locations      = var.zones
  min_master_version  = var.kubernetes_version
  deletion_protection = var.deletion_protection
  resource_labels     = var.labels

  network    = google_compute_network.this.id
  subnetwork = google_compute_subnetwork.nodes.id

  ip_allocation_policy {
    cluster_secondary_range_name  = "pods"
    services_secondary_range_name = "services"
  }

  private_cluster_config {
    enable_private_nodes    = true
    enable_private_endpoint = true
  }

  # Enforced on the private address too; with no block here only the cluster's own network gets in.
  master_authorized_networks_config {
    gcp_public_cidrs_access_enabled      = false
    private_endpoint_enforcement_enabled = true

    dynamic "cidr_blocks" {
      for_each = var.network.authorised_cidrs
      content {
        cidr_block   = cidr_blocks.value
        display_name = "authorised ${cidr_blocks.key}"
      }
    }
  }

  control_plane_endpoints_config {
    dns_endpoint_config {
      allow_external_traffic = false
    }
  }

  # Dataplane V2 enforces NetworkPolicy without an add-on.
  datapath_provider        = "ADVANCED_DATAPATH"
  enable_l4_ilb_subsetting = true

  workload_identity_config {
    workload_pool = "${local.project}.svc.id.goog"
  }

  enable_shielded_nodes = true
  enable_legacy_abac    = false

  master_auth {
    client_certificate_config {
      issue_client_certificate = false
    }
  }
  anonymous_authentication_config {
    mode = "LIMITED" # health checks only
  }
  rbac_binding_config {
    enable_insecure_binding_system_authenticated   = false
    enable_insecure_binding_system_unauthenticated = false
  }
  security_posture_config {
    mode = "BASIC"
  }
  node_pool_defaults {
    node_config_defaults {
      insecure_kubelet_readonly_port_enabled = "FALSE"
    }
  }

  # No pool but ours: auto-provisioning would buy machines that no bound counts.
  cluster_autoscaling {
    enabled             = false
    autoscaling_profile = "BALANCED"
  }

  release_channel {
    channel = "REGULAR"
  }
  maintenance_policy {
    recurring_window {
      start_time = "2026-01-03T02:00:00Z"
      end_time   = "2026-01-03T10:00:00Z"
      recurrence = "FREQ=WEEKLY;BYDAY=SA,SU"
    }
  }

  cost_management_config {
    enabled = true
  }
  logging_config {
    enable_components = ["SYSTEM_COMPONENTS", "WORKLOADS"]
  }
  monitoring_config {
    enable_components = ["SYSTEM_COMPONENTS"]
    managed_prometheus {
      enabled = true
    }
  }

  # GKE cannot start without a pool. This one lives for minutes, and keeps the same rules meanwhile.
  remove_default_node_pool = true
  initial_node_count       = 1
  node_config {
    machine_type    = var.tiers.head.machine_type
    service_account = google_service_account.nodes.email
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }
    workload_metadata_config {
      mode = "GKE_METADATA"
    }
  }

  # What is ignored is GKE's after the first day: the pool above goes, and the release channel moves
  # the version on.
  lifecycle {
    ignore_changes = [node_config, initial_node_count, min_master_version]
  }

  depends_on = [google_project_iam_member.nodes]
}
