# What a cloud leaves to whoever runs the cluster. GKE brings all of it: GPU drivers and their device
# plugin, autoscaling, its own load balancers. AKS scales pools and fills the application gateway by
# itself and installs GPU drivers; EKS has the drivers in its image. What is missing comes here, in
# kube-system, under the names that the cluster's state has given rights to (modules/eks/controllers.tf).
#
# Charts come from their projects' repositories at apply time; the versions are exact.

locals {
  cloud = local.platform.cloud

  gpu_tolerations = [
    { key = "nvidia.com/gpu", operator = "Exists", effect = "NoSchedule" },
    { key = "pixtral.ai/tier", operator = "Exists", effect = "NoSchedule" },
  ]

  # Nodes say nvidia.com/gpu.present themselves, so it needs no discovery of features. A GPU whose
  # driver is broken is an error, not a node without GPUs.
  device_plugin = {
    nvidia-device-plugin = {
      repository = "https://nvidia.github.io/k8s-device-plugin"
      version    = "0.18.2"
      values = yamlencode({
        failOnInitError = true
        nodeSelector    = { "nvidia.com/gpu.present" = "true" }
        tolerations     = local.gpu_tolerations
        gfd             = { enabled = false }
      })
    }
  }

  # Its pools are found by the tags that EKS puts on managed node groups. Ray's pods keep memory
  # volumes, which must not pin a GPU node for ever; the times are those of modules/aks.
  autoscaler = {
    cluster-autoscaler = {
      repository = "https://kubernetes.github.io/autoscaler"
      version    = "9.52.1"
      values = yamlencode({
        cloudProvider = "aws"
        awsRegion     = local.platform.location
        autoDiscovery = { clusterName = local.platform.cluster }
        rbac          = { serviceAccount = { create = true, name = "cluster-autoscaler" } }
        extraArgs = {
          expander                      = "least-waste"
          max-node-provision-time       = "30m"
          scale-down-delay-after-add    = "15m"
          scale-down-unneeded-time      = "15m"
          skip-nodes-with-local-storage = false
        }
      })
    }
  }

  # Internal whatever an Ingress says: the class decides. It takes over no Service, and region and
  # network are told, since instance metadata does not answer pods.
  load_balancers = {
    aws-load-balancer-controller = {
      repository = "https://aws.github.io/eks-charts"
      version    = "1.14.1"
      values = yamlencode({
        clusterName                 = local.platform.cluster
        region                      = local.platform.location
        vpcId                       = local.platform.network
        serviceAccount              = { create = true, name = "aws-load-balancer-controller" }
        ingressClass                = "alb"
        createIngressClassResource  = true
        ingressClassParams          = { create = true, name = "alb", spec = { scheme = "internal" } }
        defaultTargetType           = "ip"
        enableServiceMutatorWebhook = false
        enableShield                = false
        enableWaf                   = false
        enableWafv2                 = false
      })
    }
  }

  addons = merge(
    contains(["aws", "azure"], local.cloud) ? local.device_plugin : {},
    local.cloud == "aws" ? local.autoscaler : {},
    local.cloud == "aws" ? local.load_balancers : {},
  )
}

resource "helm_release" "addon" {
  for_each = local.addons

  name       = each.key
  namespace  = "kube-system"
  repository = each.value.repository
  chart      = each.key
  version    = each.value.version
  atomic     = true
  timeout    = 600
  values     = [each.value.values]
}
