# `terraform output -json platform > platform.json`, then `pixtral deploy render --platform platform.json`.
# The same shape in modules/gke, modules/eks and modules/aks. No secrets: whoever may see a pool may see this.

output "platform" {
  description = "What the workload has to know about this cluster."
  value = {
    cloud            = "gcp"
    network          = google_compute_network.this.id
    cluster          = google_container_cluster.this.name
    location         = var.location
    namespace        = local.namespace
    weights_uri      = "gs://${google_storage_bucket.weights.name}/${var.weights.prefix}"
    service_accounts = local.service_accounts
    pools            = local.pools
    database = {
      host = google_sql_database_instance.ledger.private_ip_address
      port = 5432
      name = google_sql_database.ledger.name
      user = google_sql_user.gateway.name
      tls  = "require"
    }
    redis         = local.redis
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
