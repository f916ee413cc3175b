# Who may do what, pod by pod (EKS Pod Identity): no keys, and no rights on the nodes. A role can be
# taken by one service account of this one cluster.

locals {
  service_accounts = {
    for tier in ["head", "gateway", "preprocess", "vision", "decoder"] : tier => {
      name = "pixtral-${tier}"
      # Pod Identity binds names and needs no annotation.
      annotations = tomap({})
      labels      = { "pixtral.ai/tier" = tier }
    }
  }

  read_weights = [
    {
      Effect    = "Allow"
      Action    = ["s3:ListBucket"]
      Resource  = [local.weights_arn]
      Condition = { StringLike = { "s3:prefix" = ["${var.weights.prefix}/*"] } }
    },
    {
      Effect   = "Allow"
      Action   = ["s3:GetObject"]
      Resource = ["${local.weights_arn}/${var.weights.prefix}/*"]
    },
    {
      Effect    = "Allow"
      Action    = ["kms:Decrypt"]
      Resource  = [aws_kms_key.this["weights"].arn]
      Condition = { StringEquals = { "kms:ViaService" = "s3.${var.location}.amazonaws.com" } }
    },
  ]

  read_ledger_password = [
    {
      Effect   = "Allow"
      Action   = ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"]
      Resource = [aws_db_instance.ledger.master_user_secret[0].secret_arn]
    },
    {
      Effect    = "Allow"
      Action    = ["kms:Decrypt"]
      Resource  = [aws_kms_key.this["data"].arn]
      Condition = { StringEquals = { "kms:ViaService" = "secretsmanager.${var.location}.amazonaws.com" } }
    },
  ]

  # Head and preprocess have no role: they need nothing of AWS.
  pod_roles = {
    vision        = { namespace = local.namespace, account = local.service_accounts.vision.name }
    decoder       = { namespace = local.namespace, account = local.service_accounts.decoder.name }
    gateway       = { namespace = local.namespace, account = local.service_accounts.gateway.name }
    network       = { namespace = "kube-system", account = "aws-node" }
    autoscaler    = { namespace = "kube-system", account = "cluster-autoscaler" }
    load-balancer = { namespace = "kube-system", account = "aws-load-balancer-controller" }
  }

  pod_policies = {
    vision        = local.read_weights
    decoder       = local.read_weights
    gateway       = local.read_ledger_password
    autoscaler    = local.scale_pools
    load-balancer = local.make_load_balancers
  }
}

resource "aws_iam_role" "pod" {
  for_each = local.pod_roles

  name = "${var.name}-pod-${each.key}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Condition = {
        StringEquals = {
          "aws:RequestTag/eks-cluster-arn"            = local.cluster_arn
          "aws:RequestTag/kubernetes-namespace"       = each.value.namespace
          "aws:RequestTag/kubernetes-service-account" = each.value.account
        }
      }
    }]
  })
  tags = local.tags
}

resource "aws_iam_role_policy" "pod" {
  for_each = local.pod_policies

  name   = each.key
  role   = aws_iam_role.pod[each.key].id
  policy = jsonencode({ Version = "2012-10-17", Statement = each.value })
}

resource "aws_iam_role_policy_attachment" "network" {
  role       = aws_iam_role.pod["network"].name
  policy_arn = "arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy"
}

# The network add-on makes its own.
resource "aws_eks_pod_identity_association" "this" {
  for_each = { for name, role in local.pod_roles : name => role if name != "network" }

  cluster_name    = aws_eks_cluster.this.name
  namespace       = each.value.namespace
  service_account = each.value.account
  role_arn        = aws_iam_role.pod[each.key].arn
  tags            = local.tags
}
