# What may run where, and how much of it.

mock_provider "aws" {
  source = "./tests/mocks"
}

run "five_bounded_pools" {
  command = plan

  assert {
    condition     = { for tier, pool in aws_eks_node_group.this : tier => pool.scaling_config[0].max_size } == { for tier, pool in var.tiers : tier => pool.max_nodes }
    error_message = "A pool's bound is not its tier's max_nodes."
  }
  assert {
    condition     = alltrue([for tier, pool in aws_eks_node_group.this : pool.labels["pixtral.ai/tier"] == tier])
    error_message = "A node does not say whose it is."
  }
  assert {
    condition = alltrue([
      for tier in ["vision", "decoder"] : contains([for taint in aws_eks_node_group.this[tier].taint : "${taint.key}=${taint.value}:${taint.effect}"], "nvidia.com/gpu=present:NO_SCHEDULE")
    ])
    error_message = "Anything could be put on a GPU node."
  }
  assert {
    condition = alltrue([
      for tier in ["gateway", "preprocess"] : contains([for taint in aws_eks_node_group.this[tier].taint : "${taint.key}=${taint.value}:${taint.effect}"], "pixtral.ai/tier=${tier}:NO_SCHEDULE")
    ])
    error_message = "Others could be put on the nodes that reach the ledger or open strangers' pictures."
  }
  assert {
    condition     = length(aws_eks_node_group.this["head"].taint) == 0
    error_message = "Kubernetes' own pods would have nowhere to run."
  }
  assert {
    condition     = aws_eks_node_group.this["decoder"].capacity_type == "ON_DEMAND" && aws_eks_node_group.this["preprocess"].capacity_type == "SPOT"
    error_message = "Decoders are never spot; preprocessing may be."
  }
  assert {
    condition     = aws_eks_node_group.this["decoder"].ami_type == "AL2023_x86_64_NVIDIA" && aws_eks_node_group.this["gateway"].ami_type == "AL2023_x86_64_STANDARD"
    error_message = "GPU nodes need the image with drivers, the others do not."
  }
  assert {
    condition     = aws_eks_node_group.this["decoder"].update_config[0].update_strategy == "MINIMAL"
    error_message = "An upgrade of the decoder's pool would ask for a machine beyond the bound."
  }
  assert {
    condition     = alltrue([for template in aws_launch_template.this : template.metadata_options[0].http_tokens == "required" && template.metadata_options[0].http_put_response_hop_limit == 1])
    error_message = "A pod could take the node's identity."
  }
  assert {
    condition     = alltrue([for template in aws_launch_template.this : template.block_device_mappings[0].ebs[0].encrypted == "true"])
    error_message = "A node's disk is not encrypted."
  }
  assert {
    condition = alltrue([
      for tier in ["vision", "decoder"] : strcontains(base64decode(aws_launch_template.this[tier].user_data), "application/node.eks.aws") && strcontains(base64decode(aws_launch_template.this[tier].user_data), "\"strategy\": \"RAID0\"")
    ])
    error_message = "The local disks would lie idle."
  }
  assert {
    condition     = aws_launch_template.this["gateway"].user_data == null
    error_message = "A machine without local disks is asked to join them."
  }
  assert {
    condition     = aws_launch_template.this["decoder"].capacity_reservation_specification[0].capacity_reservation_target[0].capacity_reservation_id == "cr-0123456789abcdef0" && length(aws_launch_template.this["vision"].capacity_reservation_specification) == 0
    error_message = "The decoder's reservation is not used, or by somebody else."
  }
}

run "vision_on_the_decoders_gpus" {
  command = plan

  variables {
    tiers = merge(var.tiers, { vision = merge(var.tiers.vision, { gpus = 0, min_nodes = 0, max_nodes = 0 }) })
  }

  assert {
    condition     = keys(aws_eks_node_group.this) == ["decoder", "gateway", "head", "preprocess"]
    error_message = "A pool without nodes cannot be made."
  }
  assert {
    condition     = local.pools.vision.selector == { "pixtral.ai/tier" = "decoder" } && local.pools.vision.tolerations == local.pools.decoder.tolerations && local.pools.vision.local_ssd_path == local.pools.decoder.local_ssd_path
    error_message = "Vision would not find the decoder's nodes."
  }
}
