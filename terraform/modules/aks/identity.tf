# Who may do what. Tiers log in with their Kubernetes service account's token (workload identity): no
# keys anywhere.

locals {
  # Only these read weights; vision on the decoder's nodes finds them there.
  readers = toset([for name in ["vision", "decoder"] : name if var.tiers[name].max_nodes > 0])

  service_accounts = {
    for name in keys(var.tiers) : name => {
      name        = "pixtral-${name}"
      annotations = contains(local.readers, name) ? { "azure.workload.identity/client-id" = azurerm_user_assigned_identity.reader[name].client_id } : tomap({})
      labels      = contains(local.readers, name) ? { "azure.workload.identity/use" = "true" } : tomap({})
    }
  }
}

# The cluster's own: it joins nodes and load balancers to these subnets, and nothing else. The gateway
# needs no identity: it reaches the ledger by address and password.
resource "azurerm_user_assigned_identity" "cluster" {
  name                = "${var.name}-cluster"
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  tags                = local.tags
}

resource "azurerm_role_assignment" "cluster_network" {
  for_each = setunion(local.node_subnets, ["control"])

  scope                = azurerm_subnet.this[each.key].id
  role_definition_name = "Network Contributor"
  principal_id         = azurerm_user_assigned_identity.cluster.principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_user_assigned_identity" "reader" {
  for_each = local.readers

  name                = "${var.name}-${each.key}"
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  tags                = merge(local.tags, { "pixtral-tier" = each.key })
}

resource "azurerm_federated_identity_credential" "reader" {
  for_each = local.readers

  name                      = "pixtral-${each.key}"
  user_assigned_identity_id = azurerm_user_assigned_identity.reader[each.key].id
  issuer                    = azurerm_kubernetes_cluster.this.oidc_issuer_url
  subject                   = "system:serviceaccount:${local.namespace}:${local.service_accounts[each.key].name}"
  audience                  = ["api://AzureADTokenExchange"]
}

resource "azurerm_role_assignment" "reader" {
  for_each = local.readers

  scope                = azurerm_storage_container.weights.id
  role_definition_name = "Storage Blob Data Reader"
  principal_id         = azurerm_user_assigned_identity.reader[each.key].principal_id
  principal_type       = "ServicePrincipal"
}
