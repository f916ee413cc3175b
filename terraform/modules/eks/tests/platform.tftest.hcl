# What `pixtral deploy render` gets to know, and who may do what.

# AWS's answers are there at plan already: Terraform 1.11 cannot apply a test in which an ephemeral
# variable is null, as the password has to be here.
mock_provider "aws" {
  source          = "./tests/mocks"
  override_during = plan
}

override_resource {
  target          = aws_security_group.tier["gateway"]
  values          = { id = "sg-gateway" }
  override_during = plan
}

override_resource {
  target          = aws_security_group.tier["head"]
  values          = { id = "sg-head" }
  override_during = plan
}

override_resource {
  target          = aws_subnet.nodes["us-east-1d"]
  values          = { id = "subnet-1d" }
  override_during = plan
}

override_resource {
  target          = aws_subnet.nodes["us-east-1b"]
  values          = { id = "subnet-1b" }
  override_during = plan
}

run "the_platform_says_what_the_workload_needs" {
  command = plan

  assert {
    condition     = output.platform.pools.decoder.groups_per_node == 2 && output.platform.pools.vision.groups_per_node == 0 && output.platform.pools.decoder.gpus == 8
    error_message = "A p4de.24xlarge holds two groups of four ranks; with one, half of it stands idle."
  }
  assert {
    condition     = output.platform.cloud == "aws" && output.platform.cluster == "pixtral-test" && output.platform.location == "us-east-1" && output.platform.namespace == "pixtral"
    error_message = "The workload would go elsewhere."
  }
  assert {
    condition     = output.platform.weights_uri == "s3://test-weights/weights"
    error_message = "The workload would look for the weights elsewhere."
  }
  assert {
    condition     = output.platform.database == { host = "ledger.example.us-east-1.rds.amazonaws.com", port = 5432, name = "pixtral", user = "pixtral", tls = "require" }
    error_message = "Gateways would not find the ledger, or reach it without TLS."
  }
  assert {
    condition     = output.platform.redis == { host = "ray.example.use1.cache.amazonaws.com", port = 6379, tls = true, ca = null }
    error_message = "Ray's head would not find Redis, or reach it without TLS."
  }
  assert {
    condition     = keys(output.platform.service_accounts) == ["decoder", "gateway", "head", "preprocess", "vision"] && output.platform.service_accounts.decoder.name == "pixtral-decoder"
    error_message = "The service accounts are not those that the roles are for."
  }
  assert {
    condition     = output.platform.pools.decoder.local_ssd_path == "/mnt/k8s-disks/0/pixtral" && output.platform.pools.head.local_ssd_path == null
    error_message = "Weights belong on the local disks."
  }
  assert {
    condition     = contains(output.platform.pools.decoder.tolerations, { key = "nvidia.com/gpu", operator = "Equal", value = "present", effect = "NoSchedule" })
    error_message = "The decoder could not be put on its own nodes."
  }
  assert {
    condition     = output.platform.nccl_env.NCCL_P2P_LEVEL == "NVL" && output.platform.gpu_nodes_max == 8
    error_message = "NCCL's settings or the bound on GPU nodes are not handed on."
  }
  assert {
    condition     = output.platform.ingress.class == "alb" && output.platform.ingress.annotations["alb.ingress.kubernetes.io/scheme"] == "internal" && output.platform.ingress.annotations["alb.ingress.kubernetes.io/listen-ports"] == "[{\"HTTPS\":443}]"
    error_message = "The gateway belongs behind an internal load balancer, by TLS only."
  }
  assert {
    condition     = toset(output.platform.ingress.source_cidrs) == toset([for subnet in aws_subnet.balancers : subnet.cidr_block]) && alltrue([for subnet in aws_subnet.balancers : subnet.tags["kubernetes.io/role/internal-elb"] == "1"])
    error_message = "The load balancer would stand elsewhere than the network policy lets it in from."
  }
  assert {
    condition     = output.platform.ingress.annotations["alb.ingress.kubernetes.io/inbound-cidrs"] == "10.20.0.0/16,100.64.0.0/16,10.200.0.0/24"
    error_message = "The load balancer would let in others than the network and whom it authorises."
  }
  assert {
    condition     = output.cost_inputs.decoder == { machine_type = "p4de.24xlarge", max_nodes = 2 }
    error_message = "The ceiling would be reckoned from something else."
  }
  assert {
    condition     = !strcontains(jsonencode(output.platform), "secret")
    error_message = "The platform tells of a secret."
  }

  # Least rights.
  assert {
    condition     = keys(aws_eks_pod_identity_association.this) == ["autoscaler", "decoder", "gateway", "load-balancer", "vision"] && alltrue([for tier in ["decoder", "gateway", "vision"] : aws_eks_pod_identity_association.this[tier].service_account == output.platform.service_accounts[tier].name])
    error_message = "A service account has rights that it does not need, or not those that it does."
  }
  assert {
    condition = alltrue([
      for tier in ["decoder", "vision"] : toset(flatten([for statement in jsondecode(aws_iam_role_policy.pod[tier].policy).Statement : statement.Action])) == toset(["s3:ListBucket", "s3:GetObject", "kms:Decrypt"])
    ])
    error_message = "Nodes with GPUs read the weights and do nothing else."
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.pod["decoder"].policy).Statement[1].Resource == ["arn:aws:s3:::test-weights/weights/*"]
    error_message = "More of the bucket than the weights could be read."
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.pod["gateway"].policy).Statement[0].Resource == ["arn:aws:secretsmanager:us-east-1:123456789012:secret:rds!db-1"]
    error_message = "Gateways read the ledger's password and no other secret."
  }
  assert {
    condition = alltrue([
      for name, role in aws_iam_role.pod : jsondecode(role.assume_role_policy).Statement[0].Condition.StringEquals["aws:RequestTag/kubernetes-service-account"] == local.pod_roles[name].account && jsondecode(role.assume_role_policy).Statement[0].Condition.StringEquals["aws:RequestTag/eks-cluster-arn"] == "arn:aws:eks:us-east-1:123456789012:cluster/pixtral-test"
    ])
    error_message = "A role can be taken by another service account or from another cluster."
  }
  assert {
    condition     = keys(aws_iam_role_policy_attachment.node) == ["AmazonEC2ContainerRegistryPullOnly", "AmazonEKSWorkerNodePolicy"]
    error_message = "A node has rights that belong to pods."
  }

  # Who reaches what.
  assert {
    condition     = aws_vpc_security_group_ingress_rule.ledger.referenced_security_group_id == "sg-gateway" && aws_vpc_security_group_ingress_rule.ray.referenced_security_group_id == "sg-head"
    error_message = "Others than gateways reach the ledger, or others than heads Ray's state."
  }
  assert {
    condition     = aws_launch_template.this["gateway"].vpc_security_group_ids == toset(["sg-cluster", "sg-gateway"]) && aws_launch_template.this["head"].vpc_security_group_ids == toset(["sg-cluster", "sg-head"])
    error_message = "A node is not in the cluster's group and its tier's own."
  }
  assert {
    condition     = aws_eks_node_group.this["decoder"].subnet_ids == toset(["subnet-1d"]) && length(aws_eks_node_group.this["gateway"].subnet_ids) == 2
    error_message = "Decoders stand in the first zone, gateways in all."
  }
}
