# One pool of nodes for each tier, each with an upper bound.

locals {
  # A tier without nodes of its own has no pool.
  own_pools = { for name, tier in var.tiers : name => tier if tier.max_nodes > 0 }

  # Whose nodes a tier runs on: its own, but vision may share the decoder's.
  host_tier = { for name, tier in var.tiers : name => tier.max_nodes > 0 ? name : "decoder" }

  # The head's nodes are open: Kubernetes' own pods and the Ray operator need a home. All others are
  # fenced by tier, and GPU nodes by the taint that everybody knows as well.
  taints = {
    for name, tier in var.tiers : name => concat(
      name == "head" ? [] : [{ key = "pixtral.ai/tier", value = name, effect = "NoSchedule" }],
      tier.gpus > 0 ? [{ key = "nvidia.com/gpu", value = "present", effect = "NoSchedule" }] : [],
    )
  }
  effects = { NoSchedule = "NO_SCHEDULE" } # GKE's word for Kubernetes' own

  # GKE joins the local SSDs into one RAID 0 for whatever is ephemeral, and mounts it here on the
  # node. Machines without keep the (much smaller) vision file on their boot disk.
  local_ssd_path = {
    for name, tier in var.tiers : name => (
      tier.gpus == 0 ? null : local.machines[tier.machine_type].local_ssds > 0 ? "/mnt/stateful_partition/kube-ephemeral-ssd/pixtral" : "/var/lib/pixtral"
    )
  }

  pools = {
    for name, tier in var.tiers : name => {
      machine_type    = var.tiers[local.host_tier[name]].machine_type
      gpus            = tier.gpus
      min_nodes       = tier.min_nodes
      max_nodes       = tier.max_nodes
      groups_per_node = name == "decoder" ? local.machines[tier.machine_type].groups : 0
      selector        = { "pixtral.ai/tier" = local.host_tier[name] }
      tolerations     = [for taint in local.taints[local.host_tier[name]] : merge(taint, { operator = "Equal" })]
      cpu             = local.machines[var.tiers[local.host_tier[name]].machine_type].cpu
      memory_gib      = local.machines[var.tiers[local.host_tier[name]].machine_type].memory_gib
      local_ssd_path  = local.local_ssd_path[local.host_tier[name]]
      raw_disks       = false # GKE joins and mounts them
    }
  }
}

resource "google_container_node_pool" "tier" {
  for_each = local.own_pools

  name           = each.key
  cluster        = google_container_cluster.this.id
  location       = var.location
  node_locations = var.zones

  initial_node_count = ceil(each.value.min_nodes / length(var.zones)) # per zone

  # ANY: GPUs are taken where there are some, rather than evenly. The totals count all zones, so the
  # bound holds however many there are. (COMPACT placement is left out: a group never leaves its
  # machine, and asking for neighbours makes "out of stock" likelier.)
  autoscaling {
    total_min_node_count = each.value.min_nodes
    total_max_node_count = each.value.max_nodes
    location_policy      = "ANY"
  }

  management {
    auto_repair  = true
    auto_upgrade = true
  }

  # There is rarely a spare GPU machine to surge onto: those are replaced in place, one at a time.
  upgrade_settings {
    strategy        = "SURGE"
    max_surge       = each.value.gpus > 0 ? 0 : 1
    max_unavailable = each.value.gpus > 0 ? 1 : 0
  }

  network_config {
    enable_private_nodes = true
  }

  node_config {
    machine_type    = each.value.machine_type
    image_type      = "COS_CONTAINERD"
    disk_type       = "pd-balanced"
    disk_size_gb    = each.value.disk_gb
    spot            = each.value.spot
    service_account = google_service_account.nodes.email
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"] # what it may do is IAM's to say
    tags            = [local.node_tag]
    labels          = { "pixtral.ai/tier" = each.key }
    resource_labels = merge(var.labels, { tier = each.key })
    metadata        = { disable-legacy-endpoints = "true" }

    dynamic "taint" {
      for_each = local.taints[each.key]
      content {
        key    = taint.value.key
        value  = taint.value.value
        effect = local.effects[taint.value.effect]
      }
    }

    dynamic "guest_accelerator" {
      for_each = each.value.gpus > 0 ? [local.machines[each.value.machine_type]] : []
      content {
        type  = guest_accelerator.value.gpu
        count = guest_accelerator.value.gpus

        gpu_driver_installation_config {
          gpu_driver_version = "DEFAULT"
        }
      }
    }

    dynamic "ephemeral_storage_local_ssd_config" {
      for_each = local.machines[each.value.machine_type].local_ssds > 0 ? [local.machines[each.value.machine_type].local_ssds] : []
      content {
        local_ssd_count = ephemeral_storage_local_ssd_config.value
      }
    }

    # A named reservation or none at all: an unnamed one may belong to another team.
    reservation_affinity {
      consume_reservation_type = each.value.reservation == null ? "NO_RESERVATION" : "SPECIFIC_RESERVATION"
      key                      = each.value.reservation == null ? null : "compute.googleapis.com/reservation-name"
      values                   = each.value.reservation == null ? null : [each.value.reservation]
    }

    gcfs_config {
      enabled = true # containers start while their image is still coming
    }
    gvnic {
      enabled = true
    }
    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }
    workload_metadata_config {
      mode = "GKE_METADATA" # pods see their own identity, never the node's
    }
    kubelet_config {
      insecure_kubelet_readonly_port_enabled = "FALSE"
    }
  }

  lifecycle {
    ignore_changes = [initial_node_count] # the autoscaler's from the first day
  }
}
