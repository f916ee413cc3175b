# A pool of nodes for each tier: managed node groups of one machine type, bounded above, whose size
# between the bounds is the cluster autoscaler's.

locals {
  # What is known of the machines that may be named: shapes as AWS publishes them. `groups` is how
  # many tensor-parallel groups of four A100 80GB a node holds; `nvme` says whether it has local disks.
  machines = {
    "p4de.24xlarge" = { gpus = 8, groups = 2, cpu = 96, memory_gib = 1152, nvme = true }
    "g6.2xlarge"    = { gpus = 1, groups = 0, cpu = 8, memory_gib = 32, nvme = true }
    "g6.4xlarge"    = { gpus = 1, groups = 0, cpu = 16, memory_gib = 64, nvme = true }
    "g5.2xlarge"    = { gpus = 1, groups = 0, cpu = 8, memory_gib = 32, nvme = true }
    "m7i.xlarge"    = { gpus = 0, groups = 0, cpu = 4, memory_gib = 16, nvme = false }
    "m7i.2xlarge"   = { gpus = 0, groups = 0, cpu = 8, memory_gib = 32, nvme = false }
    "m7i.4xlarge"   = { gpus = 0, groups = 0, cpu = 16, memory_gib = 64, nvme = false }
    "m7i.8xlarge"   = { gpus = 0, groups = 0, cpu = 32, memory_gib = 128, nvme = false }
  }

  # A tier without nodes of its own has no pool.
  own_pools = { for tier, pool in var.tiers : tier => pool if pool.max_nodes > 0 }

  # Whose nodes a tier runs on: its own, but vision may share the decoder's.
  host_tier = { for tier, pool in var.tiers : tier => pool.max_nodes > 0 ? tier : "decoder" }

  # GPU nodes repel what does not ask for a GPU, by the one taint that NVIDIA's device plugin
  # tolerates unasked. Gateway nodes alone reach the ledger, and preprocessing opens strangers'
  # pictures: neither takes other pods. The head's nodes are open: Kubernetes' own pods and the Ray
  # operator need a home.
  taints = {
    for tier, pool in var.tiers : tier => (
      pool.gpus > 0 ? [{ key = "nvidia.com/gpu", value = "present", effect = "NoSchedule" }] :
      tier == "head" ? [] : [{ key = "pixtral.ai/tier", value = tier, effect = "NoSchedule" }]
    )
  }
  effects = { NoSchedule = "NO_SCHEDULE" } # EKS's word for Kubernetes' own

  pools = {
    for tier, pool in var.tiers : tier => {
      machine_type    = var.tiers[local.host_tier[tier]].machine_type
      gpus            = pool.gpus
      min_nodes       = pool.min_nodes
      max_nodes       = pool.max_nodes
      groups_per_node = tier == "decoder" ? local.machines[pool.machine_type].groups : 0
      selector        = { "pixtral.ai/tier" = local.host_tier[tier] }
      tolerations     = [for taint in local.taints[local.host_tier[tier]] : merge(taint, { operator = "Equal" })]
      cpu             = local.machines[var.tiers[local.host_tier[tier]].machine_type].cpu
      memory_gib      = local.machines[var.tiers[local.host_tier[tier]].machine_type].memory_gib
      local_ssd_path  = local.machines[var.tiers[local.host_tier[tier]].machine_type].nvme ? "${local.local_disks}/pixtral" : null
      raw_disks       = false # joined and mounted by the node's bootstrap, below
    }
  }

  # All disks of the node as one (RAID 0), at this path. Images and pods' scratch space go there too.
  local_disks = "/mnt/k8s-disks/0"
  join_local_disks = join("\r\n", [
    "MIME-Version: 1.0",
    "Content-Type: multipart/mixed; boundary=\"NODE\"",
    "",
    "--NODE",
    "Content-Type: application/node.eks.aws",
    "",
    yamlencode({
      apiVersion = "node.eks.aws/v1alpha1"
      kind       = "NodeConfig"
      spec       = { instance = { localStorage = { strategy = "RAID0" } } }
    }),
    "--NODE--",
    "",
  ])
}

resource "aws_launch_template" "this" {
  for_each = local.own_pools

  name                   = "${var.name}-${each.key}"
  update_default_version = true
  # A group of its own for every tier, so that the ledger and Ray's state can admit one tier only.
  vpc_security_group_ids = [local.cluster_security_group, aws_security_group.tier[each.key].id]
  user_data              = local.machines[each.value.machine_type].nvme ? base64encode(local.join_local_disks) : null
  tags                   = local.tags

  # No pod reaches the node's credentials: a token is asked for, and it does not travel a hop further.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "disabled"
  }

  # Under the account's EBS key: one of ours would need a grant to Auto Scaling's own role, which
  # does not exist in a new account.
  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      encrypted             = "true"
      volume_type           = "gp3"
      volume_size           = each.value.disk_gb
      delete_on_termination = "true"
    }
  }

  # A reservation that is named is used or nothing is: falling back to on-demand would cost twice.
  dynamic "capacity_reservation_specification" {
    for_each = each.value.reservation == null ? [] : [each.value.reservation]
    content {
      capacity_reservation_target {
        capacity_reservation_id = capacity_reservation_specification.value
      }
    }
  }

  # No EFA interfaces: the ranks of a group stay inside one node and talk over NVSwitch. They would
  # be wanted for groups that span nodes, which are not built.

  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume", "network-interface"])
    content {
      resource_type = tag_specifications.value
      tags          = merge(local.tags, { Name = "${var.name}-${each.key}", "pixtral-tier" = each.key })
    }
  }
}

resource "aws_security_group" "tier" {
  for_each = local.own_pools

  name        = "${var.name}-${each.key}"
  description = "Nodes of the ${each.key} tier; other groups refer to it"
  vpc_id      = aws_vpc.this.id
  tags        = merge(local.tags, { Name = "${var.name}-${each.key}" })
}

resource "aws_eks_node_group" "this" {
  for_each = local.own_pools

  cluster_name    = aws_eks_cluster.this.name
  node_group_name = each.key
  node_role_arn   = aws_iam_role.node.arn
  version         = var.kubernetes_version
  ami_type        = each.value.gpus > 0 ? "AL2023_x86_64_NVIDIA" : "AL2023_x86_64_STANDARD"
  instance_types  = [each.value.machine_type]
  capacity_type   = each.value.spot ? "SPOT" : "ON_DEMAND"
  tags            = local.tags

  # What passes pictures on stays in one zone: a reservation lies in one, and traffic between zones
  # is billed. Head and gateways, which pass on text, survive the loss of another.
  subnet_ids = [
    for zone, subnet in aws_subnet.nodes : subnet.id
    if zone == local.gpu_zone || contains(["head", "gateway"], each.key)
  ]

  labels = merge(
    { "pixtral.ai/tier" = each.key },
    # What NVIDIA's device plugin looks for.
    each.value.gpus > 0 ? { "nvidia.com/gpu.present" = "true" } : {},
  )

  dynamic "taint" {
    for_each = local.taints[each.key]
    content {
      key    = taint.value.key
      value  = taint.value.value
      effect = local.effects[taint.value.effect]
    }
  }

  scaling_config {
    min_size     = each.value.min_nodes
    max_size     = each.value.max_nodes
    desired_size = each.value.min_nodes
  }

  # There is no spare machine of eight GPUs to bring up first: the old node goes, then a new one comes.
  update_config {
    max_unavailable = 1
    update_strategy = each.value.gpus > 0 ? "MINIMAL" : "DEFAULT"
  }

  launch_template {
    id      = aws_launch_template.this[each.key].id
    version = aws_launch_template.this[each.key].latest_version
  }

  lifecycle {
    ignore_changes = [scaling_config[0].desired_size]
  }

  depends_on = [aws_eks_addon.network, aws_iam_role_policy_attachment.node]
}

resource "aws_iam_role" "node" {
  name = "${var.name}-node"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
  tags = local.tags
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each = toset(["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly"])

  role       = aws_iam_role.node.name
  policy_arn = "arn:aws:iam::aws:policy/${each.key}"
}
