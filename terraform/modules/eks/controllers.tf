# What the cluster's own controllers may do. They are installed with the workload, in kube-system,
# under the names that identity.tf binds.

locals {
  # cluster-autoscaler: may look at everything, may change the size of this cluster's pools only.
  scale_pools = [
    {
      Effect = "Allow"
      Action = [
        "autoscaling:DescribeAutoScalingGroups",
        "autoscaling:DescribeAutoScalingInstances",
        "autoscaling:DescribeLaunchConfigurations",
        "autoscaling:DescribeScalingActivities",
        "autoscaling:DescribeTags",
        "ec2:DescribeImages",
        "ec2:DescribeInstanceTypes",
        "ec2:DescribeLaunchTemplateVersions",
        "ec2:GetInstanceTypesFromInstanceRequirements",
        "eks:DescribeNodegroup",
      ]
      Resource = ["*"]
    },
    {
      Effect    = "Allow"
      Action    = ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"]
      Resource  = ["*"]
      Condition = { StringEquals = { "aws:ResourceTag/k8s.io/cluster-autoscaler/${var.name}" = "owned" } }
    },
  ]

  # aws-load-balancer-controller: what it makes carries this tag, and it may change nothing else.
  # No rights for WAF and Shield: install it with enableWaf, enableWafv2 and enableShield off.
  tagged_at_birth = { StringEquals = { "aws:RequestTag/elbv2.k8s.aws/cluster" = var.name } }
  its_own         = { StringEquals = { "aws:ResourceTag/elbv2.k8s.aws/cluster" = var.name } }

  make_load_balancers = [
    {
      Effect = "Allow"
      Action = [
        "acm:DescribeCertificate",
        "acm:ListCertificates",
        "ec2:DescribeAccountAttributes",
        "ec2:DescribeAddresses",
        "ec2:DescribeAvailabilityZones",
        "ec2:DescribeInstances",
        "ec2:DescribeInternetGateways",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeRouteTables",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets",
        "ec2:DescribeTags",
        "ec2:DescribeVpcs",
        "ec2:GetSecurityGroupsForVpc",
        "elasticloadbalancing:Describe*",
      ]
      Resource = ["*"]
    },
    {
      Effect    = "Allow"
      Action    = ["iam:CreateServiceLinkedRole"]
      Resource  = ["*"]
      Condition = { StringEquals = { "iam:AWSServiceName" = "elasticloadbalancing.amazonaws.com" } }
    },
    {
      Effect   = "Allow"
      Action   = ["ec2:CreateSecurityGroup"]
      Resource = ["*"]
    },
    {
      Effect   = "Allow"
      Action   = ["ec2:CreateTags"]
      Resource = ["arn:aws:ec2:*:*:security-group/*"]
      Condition = {
        StringEquals = {
          "ec2:CreateAction"                     = "CreateSecurityGroup"
          "aws:RequestTag/elbv2.k8s.aws/cluster" = var.name
        }
      }
    },
    {
      Effect    = "Allow"
      Action    = ["ec2:CreateTags", "ec2:DeleteTags", "ec2:DeleteSecurityGroup"]
      Resource  = ["arn:aws:ec2:*:*:security-group/*"]
      Condition = local.its_own
    },
    # Also the nodes' groups, which it opens to its load balancers: anything in this network.
    {
      Effect    = "Allow"
      Action    = ["ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress"]
      Resource  = ["*"]
      Condition = { ArnEquals = { "ec2:Vpc" = aws_vpc.this.arn } }
    },
    {
      Effect    = "Allow"
      Action    = ["elasticloadbalancing:CreateLoadBalancer", "elasticloadbalancing:CreateTargetGroup"]
      Resource  = ["*"]
      Condition = local.tagged_at_birth
    },
    {
      Effect = "Allow"
      Action = ["elasticloadbalancing:AddTags"]
      Resource = [
        "arn:aws:elasticloadbalancing:*:*:loadbalancer/*",
        "arn:aws:elasticloadbalancing:*:*:targetgroup/*",
      ]
      Condition = {
        StringEquals = {
          "elasticloadbalancing:CreateAction"    = ["CreateLoadBalancer", "CreateTargetGroup"]
          "aws:RequestTag/elbv2.k8s.aws/cluster" = var.name
        }
      }
    },
    # A listener's rights are those of the load balancer that it belongs to, tags included.
    {
      Effect = "Allow"
      Action = [
        "elasticloadbalancing:AddListenerCertificates",
        "elasticloadbalancing:AddTags",
        "elasticloadbalancing:CreateListener",
        "elasticloadbalancing:CreateRule",
        "elasticloadbalancing:DeleteListener",
        "elasticloadbalancing:DeleteLoadBalancer",
        "elasticloadbalancing:DeleteRule",
        "elasticloadbalancing:DeleteTargetGroup",
        "elasticloadbalancing:DeregisterTargets",
        "elasticloadbalancing:ModifyListener",
        "elasticloadbalancing:ModifyListenerAttributes",
        "elasticloadbalancing:ModifyLoadBalancerAttributes",
        "elasticloadbalancing:ModifyRule",
        "elasticloadbalancing:ModifyTargetGroup",
        "elasticloadbalancing:ModifyTargetGroupAttributes",
        "elasticloadbalancing:RegisterTargets",
        "elasticloadbalancing:RemoveListenerCertificates",
        "elasticloadbalancing:RemoveTags",
        "elasticloadbalancing:SetIpAddressType",
        "elasticloadbalancing:SetRulePriorities",
        "elasticloadbalancing:SetSecurityGroups",
        "elasticloadbalancing:SetSubnets",
      ]
      Resource  = ["*"]
      Condition = local.its_own
    },
  ]
}
