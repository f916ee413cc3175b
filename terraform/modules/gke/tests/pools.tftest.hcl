# What may run where, and how much of it.

mock_provider "google" {
  source = "./tests/mocks"
}

run "pools_are_bounded_fenced_and_hardened" {
  command = plan

  assert {
    condition     = { for name, pool in google_container_node_pool.tier : name => pool.autoscaling[0].total_max_node_count } == { for name, tier in var.tiers : name => tier.max_nodes }
    error_message = "A pool's bound is not its tier's max_nodes."
  }

  assert {
    condition     = alltrue([for pool in google_container_node_pool.tier : pool.autoscaling[0].max_node_count == null])
    error_message = "A bound per zone is a bound times the zones."
  }

  assert {
    condition     = alltrue([for pool in google_container_node_pool.tier : pool.autoscaling[0].location_policy == "ANY"])
    error_message = "GPUs must be taken from the zone that has them."
  }

  assert {
    condition     = !google_container_cluster.this.cluster_autoscaling[0].enabled
    error_message = "Auto-provisioning makes pools that no bound counts."
  }

  assert {
    condition     = google_container_node_pool.tier["decoder"].upgrade_settings[0].max_surge == 0 && google_container_node_pool.tier["gateway"].upgrade_settings[0].max_surge == 1
    error_message = "An upgrade of the decoder's pool must not ask for one GPU machine more than the bound."
  }

  assert {
    condition     = alltrue([for name, pool in google_container_node_pool.tier : pool.node_config[0].labels["pixtral.ai/tier"] == name])
    error_message = "A node does not say whose it is."
  }

  assert {
    condition = alltrue([
      for name in ["vision", "decoder"] : contains([for taint in google_container_node_pool.tier[name].node_config[0].taint : "${taint.key}=${taint.value}:${taint.effect}"], "nvidia.com/gpu=present:NO_SCHEDULE")
    ])
    error_message = "Anything could be put on a GPU node."
  }

  assert {
    condition = alltrue([
      for name in ["gateway", "preprocess", "vision", "decoder"] : contains([for taint in google_container_node_pool.tier[name].node_config[0].taint : "${taint.key}=${taint.value}:${taint.effect}"], "pixtral.ai/tier=${name}:NO_SCHEDULE")
    ])
    error_message = "Tiers could be put on each other's nodes."
  }

  assert {
    condition     = length(google_container_node_pool.tier["head"].node_config[0].taint) == 0
    error_message = "Kubernetes' own pods would have nowhere to run."
  }

  assert {
    condition     = alltrue([for pool in google_container_node_pool.tier : pool.network_config[0].enable_private_nodes])
    error_message = "A node would get a public address."
  }

  assert {
    condition     = alltrue([for pool in google_container_node_pool.tier : pool.node_config[0].shielded_instance_config[0].enable_secure_boot && pool.node_config[0].workload_metadata_config[0].mode == "GKE_METADATA"])
    error_message = "Secure boot is off, or pods can take the node's identity."
  }

  assert {
    condition     = alltrue([for pool in google_container_node_pool.tier : pool.node_config[0].gvnic[0].enabled && pool.node_config[0].gcfs_config[0].enabled])
    error_message = "gVNIC or image streaming is off."
  }
}

run "the_decoder_has_its_gpus_and_its_disks" {
  command = plan

  variables {
    tiers = merge(var.tiers, { decoder = merge(var.tiers.decoder, { reservation = "a100" }) })
  }

  assert {
    condition     = google_container_node_pool.tier["decoder"].node_config[0].guest_accelerator[0].type == "nvidia-a100-80gb" && google_container_node_pool.tier["decoder"].node_config[0].guest_accelerator[0].count == 4
    error_message = "An a2-ultragpu-4g has four A100 of 80 GB."
  }
  assert {
    condition     = google_container_node_pool.tier["decoder"].node_config[0].ephemeral_storage_local_ssd_config[0].local_ssd_count == 4
    error_message = "Its four local SSDs hold the weights."
  }
  assert {
    condition     = google_container_node_pool.tier["decoder"].node_config[0].reservation_affinity[0].values == toset(["a100"]) && google_container_node_pool.tier["vision"].node_config[0].reservation_affinity[0].consume_reservation_type == "NO_RESERVATION"
    error_message = "The reservation is the decoder's, and nobody else's."
  }
  assert {
    condition     = length(google_container_node_pool.tier["decoder"].placement_policy) == 0
    error_message = "COMPACT placement makes 'out of stock' likelier and gains nothing inside one machine."
  }
  assert {
    condition     = !google_container_node_pool.tier["decoder"].node_config[0].spot && google_container_node_pool.tier["preprocess"].node_config[0].spot
    error_message = "Only what was asked to be spot may be."
  }
}

run "vision_may_share_the_decoders_gpus" {
  command = plan

  variables {
    tiers = merge(var.tiers, { vision = merge(var.tiers.vision, { gpus = 0, min_nodes = 0, max_nodes = 0 }) })
  }

  assert {
    condition     = !contains(keys(google_container_node_pool.tier), "vision")
    error_message = "Vision without nodes of its own needs no pool."
  }
  assert {
    condition     = local.pools.vision.selector == local.pools.decoder.selector && local.pools.vision.tolerations == local.pools.decoder.tolerations
    error_message = "Vision would not be let onto the decoder's nodes."
  }
}
