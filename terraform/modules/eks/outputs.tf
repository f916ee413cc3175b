# `terraform output -json platform > platform.json`, then `pixtral deploy render --platform platform.json`.
# The same shape in modules/gke, modules/eks and modules/aks. No secrets: whoever may see a pool may see this.

locals {
  # A group never leaves its machine, so NCCL talks over NVSwitch alone and the network card is for
  # images and weights. None of these has been run on such a machine.
  nccl_env = {
    NCCL_P2P_LEVEL     = "NVL"  # not run: every pair of these A100s is joined by NVLink; fail rather than crawl over PCIe
    NCCL_IB_DISABLE    = "1"    # not run: there is no InfiniBand to look for, and EFA is not attached
    NCCL_SOCKET_IFNAME = "eth0" # not run: the pod's one interface, for the bootstrap between ranks
    NCCL_NVLS_ENABLE   = "0"    # not run: NVLink SHARP came after the A100
  }
}

output "platform" {
  description = "What the workload has to know about this cluster."
  value = {
    cloud            = "aws"
    network          = aws_vpc.this.id
    cluster          = aws_eks_cluster.this.name
    location         = var.location
    namespace        = local.namespace
    weights_uri      = "s3://${aws_s3_bucket.weights.bucket}/${var.weights.prefix}"
    service_accounts = local.service_accounts
    pools            = local.pools
    database = {
      host = aws_db_instance.ledger.address
      port = 5432
      name = aws_db_instance.ledger.db_name
      user = aws_db_instance.ledger.username
      tls  = "require"
    }
    redis = {
      host = aws_elasticache_replication_group.ray.primary_endpoint_address
      port = aws_elasticache_replication_group.ray.port
      tls  = true
      ca   = null # signed by an authority that images know
    }
    nccl_env      = local.nccl_env
    ingress       = local.ingress
    gpu_nodes_max = var.max_gpu_nodes
  }
}

output "cost_inputs" {
  description = "What `pixtral plan` and the policy suite multiply by prices: the most that can run."
  value = {
    for name, tier in var.tiers : name => { machine_type = tier.machine_type, max_nodes = tier.max_nodes }
  }
}
