# `terraform output -json platform > platform.json`, then `pixtral deploy render --platform platform.json`.
# The same shape in modules/gke, modules/eks and modules/aks. No secrets: whoever may see a pool may see this.
#
# A decoder on Standard_NC96ads_A100_v4 is slower than the same group elsewhere: its four GPUs meet over
# PCIe (machines.tf). nccl_env has not been run on either machine.

output "platform" {
  description = "What the workload has to know about this cluster. Decoders on Standard_NC96ads_A100_v4 are slower: their GPUs meet over PCIe."
  value = {
    cloud            = "azure"
    network          = azurerm_virtual_network.this.id
    cluster          = azurerm_kubernetes_cluster.this.name
    location         = var.location
    namespace        = local.namespace
    weights_uri      = "az://${azurerm_storage_account.weights.name}/${azurerm_storage_container.weights.name}/${var.weights.prefix}"
    service_accounts = local.service_accounts
    pools            = local.pools
    database = {
      host = azurerm_postgresql_flexible_server.ledger.fqdn
      port = 5432
      name = azurerm_postgresql_flexible_server_database.ledger.name
      user = azurerm_postgresql_flexible_server.ledger.administrator_login
      tls  = "require"
    }
    redis = {
      host = jsondecode(azurerm_resource_group_template_deployment.redis.output_content).host.value
      port = local.redis_port
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
