# The cluster: its control plane has an address in our network only, logins are Entra's only.

locals {
  namespace = "pixtral"
  tags      = merge(var.labels, { "pixtral-cluster" = var.name })

  # In UTC, for both what Azure upgrades by itself and node images.
  maintenance = { frequency = "Weekly", interval = 1, duration = 4, day_of_week = "Sunday", start_time = "02:00", utc_offset = "+00:00" }
}

resource "azurerm_resource_group" "this" {
  name     = var.name
  location = var.location
  tags     = local.tags
}

resource "azurerm_kubernetes_cluster" "this" {
  name                = var.name
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  node_resource_group = "${var.name}-nodes"
  kubernetes_version  = var.kubernetes_version
  sku_tier            = "Standard"
  tags                = local.tags

  # Azure's "run command" would be a way round the private network.
  dns_prefix                          = var.name
  private_cluster_enabled             = true
  private_cluster_public_fqdn_enabled = false
  private_dns_zone_id                 = "System"
  run_command_enabled                 = false

  # Who may do what is granted in Entra ("Azure Kubernetes Service RBAC …" roles); there are no
  # cluster certificates to lose.
  local_account_disabled            = true
  role_based_access_control_enabled = true
  azure_active_directory_role_based_access_control {
    azure_rbac_enabled = true
  }

  oidc_issuer_enabled       = true
  workload_identity_enabled = true

  automatic_upgrade_channel = "patch"
  node_os_upgrade_channel   = "NodeImage"
  cost_analysis_enabled     = true

  api_server_access_profile {
    virtual_network_integration_enabled = true
    subnet_id                           = azurerm_subnet.this["control"].id
  }

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.cluster.id]
  }

  network_profile {
    network_plugin      = "azure"
    network_plugin_mode = "overlay"
    network_data_plane  = "cilium"
    network_policy      = "cilium"
    load_balancer_sku   = "standard"
    outbound_type       = "userAssignedNATGateway"
    pod_cidr            = var.network.pods_cidr
    service_cidr        = var.network.services_cidr
    dns_service_ip      = cidrhost(var.network.services_cidr, 10)
  }

  # The head's pool. It carries no taint: Kubernetes' own pods and the Ray operator need a home.
  default_node_pool {
    name                        = "head"
    vm_size                     = var.tiers.head.machine_type
    type                        = "VirtualMachineScaleSets"
    orchestrator_version        = var.kubernetes_version
    auto_scaling_enabled        = true
    min_count                   = var.tiers.head.min_nodes
    max_count                   = var.tiers.head.max_nodes
    zones                       = var.zones
    vnet_subnet_id              = azurerm_subnet.this["head"].id
    node_public_ip_enabled      = false
    host_encryption_enabled     = true
    os_sku                      = "Ubuntu"
    os_disk_size_gb             = var.tiers.head.disk_gb
    node_labels                 = local.node_labels.head
    temporary_name_for_rotation = "headnew"
    tags                        = merge(local.tags, { "pixtral-tier" = "head" })

    capacity_reservation_group_id = var.tiers.head.reservation

    upgrade_settings {
      max_surge = "1"
    }
  }

  # Pools are the ones declared here; Azure makes none by itself.
  node_provisioning_profile {
    mode = "Manual"
  }

  # Ray's pods keep memory volumes, which must not pin a GPU node for ever. A decoder loads for many
  # minutes: its node counts as needed from the moment its pod is placed, so short times are safe.
  auto_scaler_profile {
    expander                      = "least-waste"
    skip_nodes_with_local_storage = false
    max_node_provisioning_time    = "30m"
    scale_down_unneeded           = "15m"
    scale_down_delay_after_add    = "15m"
  }

  # Fills the application gateway from the workload's Ingress.
  ingress_application_gateway {
    gateway_id = azurerm_application_gateway.this.id
  }

  maintenance_window_auto_upgrade {
    frequency   = local.maintenance.frequency
    interval    = local.maintenance.interval
    duration    = local.maintenance.duration
    day_of_week = local.maintenance.day_of_week
    start_time  = local.maintenance.start_time
    utc_offset  = local.maintenance.utc_offset
  }
  maintenance_window_node_os {
    frequency   = local.maintenance.frequency
    interval    = local.maintenance.interval
    duration    = local.maintenance.duration
    day_of_week = local.maintenance.day_of_week
    start_time  = local.maintenance.start_time
    utc_offset  = local.maintenance.utc_offset
  }

  lifecycle {
    ignore_changes = [default_node_pool[0].node_count] # the autoscaler's from the first day
  }

  # The cluster needs its rights and its way out before it has nodes.
  depends_on = [
    azurerm_role_assignment.cluster_network,
    azurerm_subnet_nat_gateway_association.this,
    azurerm_subnet_network_security_group_association.this,
  ]
}

# Against everybody, not against Terraform only. Not on the resource group: there it would also refuse
# to take a role back. While it is on, a pool cannot be replaced: take it off for that.
resource "azurerm_management_lock" "this" {
  for_each = var.deletion_protection ? {
    cluster  = azurerm_kubernetes_cluster.this.id
    database = azurerm_postgresql_flexible_server.ledger.id
    weights  = azurerm_storage_account.weights.id
  } : {}

  name       = "${var.name}-${each.key}"
  scope      = each.value
  lock_level = "CanNotDelete"
  notes      = "deletion_protection of ${var.name}"
}
