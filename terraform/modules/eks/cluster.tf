# The control plane: on private addresses only, asked by name (API access entries), its secrets under
# our key, its audit log kept.

locals {
  namespace              = "pixtral"
  cluster_arn            = "arn:aws:eks:${var.location}:${local.account}:cluster/${var.name}"
  cluster_security_group = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
}

resource "aws_eks_cluster" "this" {
  name                          = var.name
  version                       = var.kubernetes_version
  role_arn                      = aws_iam_role.cluster.arn
  enabled_cluster_log_types     = ["api", "audit", "authenticator", "controllerManager", "scheduler"]
  deletion_protection           = var.deletion_protection
  bootstrap_self_managed_addons = false
  tags                          = local.tags

  vpc_config {
    subnet_ids              = [for subnet in aws_subnet.control : subnet.id]
    security_group_ids      = [aws_security_group.control.id]
    endpoint_private_access = true
    endpoint_public_access  = false
  }

  # Whoever applies this is the first administrator; others get access entries of their own.
  access_config {
    authentication_mode                         = "API"
    bootstrap_cluster_creator_admin_permissions = true
  }

  kubernetes_network_config {
    ip_family         = "ipv4"
    service_ipv4_cidr = var.network.services_cidr
  }

  encryption_config {
    resources = ["secrets"]
    provider {
      key_arn = aws_kms_key.this["cluster"].arn
    }
  }

  # A version at its end is upgraded by AWS instead of costing more without anybody having said so.
  upgrade_policy {
    support_type = "STANDARD"
  }

  depends_on = [
    aws_cloudwatch_log_group.cluster,
    aws_iam_role_policy.cluster_key,
    aws_iam_role_policy_attachment.cluster,
  ]
}

# Made before the cluster, which would otherwise make one that is kept for ever.
resource "aws_cloudwatch_log_group" "cluster" {
  name              = "/aws/eks/${var.name}/cluster"
  retention_in_days = 90
  tags              = local.tags
}

# Beside the cluster's own group (nodes and control plane among themselves): who else may ask the API.
resource "aws_security_group" "control" {
  name        = "${var.name}-control"
  description = "Who may reach the Kubernetes API from outside the cluster"
  vpc_id      = aws_vpc.this.id
  tags        = merge(local.tags, { Name = "${var.name}-control" })
}

resource "aws_vpc_security_group_ingress_rule" "control" {
  for_each = toset(var.network.authorised_cidrs)

  security_group_id = aws_security_group.control.id
  description       = "Kubernetes API from an authorised network"
  cidr_ipv4         = each.key
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  tags              = local.tags
}

resource "aws_iam_role" "cluster" {
  name = "${var.name}-cluster"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "eks.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
  tags = local.tags
}

resource "aws_iam_role_policy_attachment" "cluster" {
  role       = aws_iam_role.cluster.name
  policy_arn = "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
}

resource "aws_iam_role_policy" "cluster_key" {
  name = "secrets-key"
  role = aws_iam_role.cluster.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["kms:Encrypt", "kms:Decrypt", "kms:DescribeKey", "kms:ListGrants"]
      Resource = aws_kms_key.this["cluster"].arn
    }]
  })
}

# Without versions: EKS then installs what it recommends for the cluster's own version, and nothing
# here moves it later.
resource "aws_eks_addon" "before_nodes" {
  for_each = toset(["eks-pod-identity-agent", "kube-proxy"])

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  resolve_conflicts_on_update = "PRESERVE"
  tags                        = local.tags
}

# It also enforces network policies, which the workload relies on. Its rights to make network
# interfaces are the pod's own; the node has none.
resource "aws_eks_addon" "network" {
  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = "vpc-cni"
  configuration_values        = jsonencode({ enableNetworkPolicy = "true" })
  resolve_conflicts_on_update = "PRESERVE"
  tags                        = local.tags

  pod_identity_association {
    service_account = "aws-node"
    role_arn        = aws_iam_role.pod["network"].arn
  }

  depends_on = [aws_iam_role_policy_attachment.network, aws_eks_addon.before_nodes]
}

resource "aws_eks_addon" "dns" {
  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = "coredns"
  resolve_conflicts_on_update = "PRESERVE"
  tags                        = local.tags

  depends_on = [aws_eks_node_group.this]
}
