# One pool of nodes for each tier, each with an upper bound. The head's is in cluster.tf: AKS wants its
# first pool declared inside the cluster.

locals {
  # A tier without nodes of its own has no pool.
  own_pools = { for name, tier in var.tiers : name => tier if tier.max_nodes > 0 && name != "head" }

  # Whose nodes a tier runs on: its own, but vision may share the decoder's.
  host_tier = { for name, tier in var.tiers : name => tier.max_nodes > 0 ? name : "decoder" }

  # All but the head's nodes are fenced by tier, GPU nodes by the taint that everybody knows as well,
  # and spot nodes by the one that AKS puts on them.
  taints = {
    for name, tier in var.tiers : name => concat(
      name == "head" ? [] : [{ key = "pixtral.ai/tier", value = name, effect = "NoSchedule" }],
      tier.gpus > 0 ? [{ key = "nvidia.com/gpu", value = "present", effect = "NoSchedule" }] : [],
      tier.spot ? [{ key = "kubernetes.azure.com/scalesetpriority", value = "spot", effect = "NoSchedule" }] : [],
    )
  }

  node_labels = {
    for name, tier in var.tiers : name => merge(
      { "pixtral.ai/tier" = name },
      tier.gpus > 0 ? { "nvidia.com/gpu.present" = "true" } : {}, # what NVIDIA's device plugin looks for
      tier.spot ? { "kubernetes.azure.com/scalesetpriority" = "spot" } : {},
    )
  }

  # AKS leaves the machines' local NVMe disks raw (raw_disks): a DaemonSet that `pixtral deploy render`
  # writes joins and mounts them here. Machines without NVMe keep the (much smaller) vision file on their
  # system disk.
  local_ssd_path = {
    for name, tier in var.tiers : name => (
      tier.gpus == 0 ? null : local.machines[tier.machine_type].nvme ? "/mnt/pixtral-nvme" : "/var/lib/pixtral"
    )
  }

  pools = {
    for name, tier in var.tiers : name => {
      machine_type    = var.tiers[local.host_tier[name]].machine_type
      gpus            = tier.gpus
      min_nodes       = tier.min_nodes
      max_nodes       = tier.max_nodes
      groups_per_node = name == "decoder" ? local.decoder_machine.groups : 0
      selector        = { "pixtral.ai/tier" = local.host_tier[name] }
      tolerations     = [for taint in local.taints[local.host_tier[name]] : merge(taint, { operator = "Equal" })]
      cpu             = local.machines[var.tiers[local.host_tier[name]].machine_type].cpu
      memory_gib      = local.machines[var.tiers[local.host_tier[name]].machine_type].memory_gib
      local_ssd_path  = local.local_ssd_path[local.host_tier[name]]
      raw_disks       = local.machines[var.tiers[local.host_tier[name]].machine_type].nvme
    }
  }
}

resource "azurerm_kubernetes_cluster_node_pool" "tier" {
  for_each = local.own_pools

  name                        = each.key
  kubernetes_cluster_id       = azurerm_kubernetes_cluster.this.id
  vm_size                     = each.value.machine_type
  mode                        = "User"
  orchestrator_version        = var.kubernetes_version
  auto_scaling_enabled        = true
  min_count                   = each.value.min_nodes
  max_count                   = each.value.max_nodes
  zones                       = var.zones
  vnet_subnet_id              = azurerm_subnet.this[local.tier_subnet[each.key]].id
  node_public_ip_enabled      = false
  host_encryption_enabled     = true
  os_sku                      = "Ubuntu"
  os_disk_size_gb             = each.value.disk_gb
  node_labels                 = local.node_labels[each.key]
  node_taints                 = [for taint in local.taints[each.key] : "${taint.key}=${taint.value}:${taint.effect}"]
  gpu_driver                  = each.value.gpus > 0 ? "Install" : null
  temporary_name_for_rotation = "${substr(each.key, 0, 9)}new" # 12 letters at most
  tags                        = merge(local.tags, { "pixtral-tier" = each.key })

  priority        = each.value.spot ? "Spot" : "Regular"
  eviction_policy = each.value.spot ? "Delete" : null
  spot_max_price  = each.value.spot ? -1 : null # never more than on demand

  capacity_reservation_group_id = each.value.reservation

  # There is rarely a spare GPU machine to surge onto: those are replaced in place, one at a time. Azure
  # takes one of the two settings, and for spot pools neither.
  dynamic "upgrade_settings" {
    for_each = each.value.spot ? [] : [each.value.gpus > 0]
    content {
      max_surge       = upgrade_settings.value ? null : "1"
      max_unavailable = upgrade_settings.value ? "1" : null
    }
  }

  lifecycle {
    ignore_changes = [node_count] # the autoscaler's from the first day
  }
}
