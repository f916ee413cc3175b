# What may run where, and how much of it.

mock_provider "azurerm" {
  source = "./tests/mocks"
}

run "every_pool_is_bounded" {
  command = plan

  assert {
    condition = merge(
      { for name, pool in azurerm_kubernetes_cluster_node_pool.tier : name => pool.max_count },
      { head = azurerm_kubernetes_cluster.this.default_node_pool[0].max_count },
    ) == { for name, tier in var.tiers : name => tier.max_nodes }
    error_message = "A pool's bound is not its tier's max_nodes."
  }
  assert {
    condition = alltrue([for pool in azurerm_kubernetes_cluster_node_pool.tier : pool.auto_scaling_enabled]) && merge(
      { for name, pool in azurerm_kubernetes_cluster_node_pool.tier : name => pool.min_count },
      { head = azurerm_kubernetes_cluster.this.default_node_pool[0].min_count },
    ) == { for name, tier in var.tiers : name => tier.min_nodes }
    error_message = "Idle nodes would stay."
  }
  assert {
    condition     = azurerm_kubernetes_cluster.this.node_provisioning_profile[0].mode == "Manual"
    error_message = "Auto-provisioning makes pools that no bound counts."
  }
  assert {
    condition     = azurerm_kubernetes_cluster.this.auto_scaler_profile[0].skip_nodes_with_local_storage == false
    error_message = "Every Ray pod has a memory volume: no GPU node would ever be given back."
  }
}

run "a_scarce_machine_is_not_surged_onto" {
  command = plan

  assert {
    condition     = alltrue([for name in ["vision", "decoder"] : azurerm_kubernetes_cluster_node_pool.tier[name].upgrade_settings[0].max_surge == null && azurerm_kubernetes_cluster_node_pool.tier[name].upgrade_settings[0].max_unavailable == "1"])
    error_message = "An upgrade of a GPU pool must not ask for one machine more than the bound."
  }
  assert {
    condition     = azurerm_kubernetes_cluster_node_pool.tier["gateway"].upgrade_settings[0].max_surge == "1" && length(azurerm_kubernetes_cluster_node_pool.tier["preprocess"].upgrade_settings) == 0
    error_message = "Gateways must not become fewer in an upgrade; Azure refuses these settings for spot pools."
  }
}

run "tiers_are_labelled_and_fenced" {
  command = plan

  assert {
    condition     = alltrue([for name, pool in azurerm_kubernetes_cluster_node_pool.tier : pool.node_labels["pixtral.ai/tier"] == name]) && azurerm_kubernetes_cluster.this.default_node_pool[0].node_labels["pixtral.ai/tier"] == "head"
    error_message = "A node does not say whose it is."
  }
  assert {
    condition     = alltrue([for name in ["vision", "decoder"] : contains(azurerm_kubernetes_cluster_node_pool.tier[name].node_taints, "nvidia.com/gpu=present:NoSchedule")])
    error_message = "Anything could be put on a GPU node."
  }
  assert {
    condition     = alltrue([for name, pool in azurerm_kubernetes_cluster_node_pool.tier : contains(pool.node_taints, "pixtral.ai/tier=${name}:NoSchedule")])
    error_message = "Tiers could be put on each other's nodes."
  }
  assert {
    condition     = azurerm_kubernetes_cluster.this.default_node_pool[0].only_critical_addons_enabled != true
    error_message = "Ray's head and operator would have nowhere to run."
  }
}

run "nodes_are_private_and_encrypted" {
  command = plan

  assert {
    condition     = alltrue([for pool in concat(values(azurerm_kubernetes_cluster_node_pool.tier), azurerm_kubernetes_cluster.this.default_node_pool) : pool.node_public_ip_enabled == false && pool.host_encryption_enabled])
    error_message = "A node would get a public address, or its local disks lie in clear."
  }
}

run "only_what_was_asked_to_be_spot_is" {
  command = plan

  assert {
    condition     = { for name, pool in azurerm_kubernetes_cluster_node_pool.tier : name => pool.priority } == { gateway = "Regular", preprocess = "Spot", vision = "Regular", decoder = "Regular" }
    error_message = "Only what was asked to be spot may be."
  }
  assert {
    condition     = contains(azurerm_kubernetes_cluster_node_pool.tier["preprocess"].node_taints, "kubernetes.azure.com/scalesetpriority=spot:NoSchedule") && contains([for toleration in local.pools.preprocess.tolerations : toleration.key], "kubernetes.azure.com/scalesetpriority")
    error_message = "AKS taints spot nodes, and the tier must bear it."
  }
}

run "the_decoder_has_its_gpus_and_its_reservation" {
  command = plan

  variables {
    tiers = merge(var.tiers, { decoder = merge(var.tiers.decoder, { reservation = "/subscriptions/0/reserved" }) })
  }

  assert {
    condition     = azurerm_kubernetes_cluster_node_pool.tier["decoder"].gpu_driver == "Install" && azurerm_kubernetes_cluster_node_pool.tier["gateway"].gpu_driver == null
    error_message = "GPU nodes come without a driver."
  }
  assert {
    condition     = azurerm_kubernetes_cluster_node_pool.tier["decoder"].capacity_reservation_group_id == "/subscriptions/0/reserved" && azurerm_kubernetes_cluster_node_pool.tier["vision"].capacity_reservation_group_id == null
    error_message = "The reservation is the decoder's, and nobody else's."
  }
}

run "vision_may_share_the_decoders_gpus" {
  command = plan

  variables {
    tiers = merge(var.tiers, { vision = merge(var.tiers.vision, { gpus = 0, min_nodes = 0, max_nodes = 0 }) })
  }

  assert {
    condition     = !contains(keys(azurerm_kubernetes_cluster_node_pool.tier), "vision") && keys(azurerm_user_assigned_identity.reader) == ["decoder"]
    error_message = "Vision without nodes of its own needs no pool and no identity."
  }
  assert {
    condition     = local.pools.vision.selector == local.pools.decoder.selector && local.pools.vision.tolerations == local.pools.decoder.tolerations
    error_message = "Vision would not be let onto the decoder's nodes."
  }
}
