# One private network: no node, database or load balancer in it has a public address. What runs in it
# reaches out through NAT; nothing outside reaches in.

locals {
  # Half for the nodes that work, a sixteenth each for head, gateways and ingress, and small ranges for
  # the control plane, private endpoints and the database. Head and gateways stand apart because a
  # network rule sees nodes, not pods: so only the head reaches Redis, and only gateways the ledger.
  ranges = zipmap(
    ["workers", "head", "gateway", "ingress", "control", "endpoints", "database"],
    cidrsubnets(var.network.cidr, 1, 4, 4, 4, 8, 8, 8),
  )
  node_subnets = toset(["workers", "head", "gateway"])
  tier_subnet  = { for name in keys(var.tiers) : name => contains(["head", "gateway"], name) ? name : "workers" }

  # What each subnet lets in; all the rest is refused. No rule names 8265: the dashboard is reached by
  # port-forward, through the control plane and its access control. Ports inside the cluster are the
  # network policies' to fence.
  inside = [var.network.cidr, var.network.pods_cidr]
  node_rules = {
    cluster  = { from = local.inside, tag = null, protocol = "*", ports = ["*"] }
    balancer = { from = null, tag = "AzureLoadBalancer", protocol = "*", ports = ["*"] }
  }
  # https://learn.microsoft.com/azure/aks/api-server-vnet-integration lists what the control plane needs.
  control_rules = merge(
    {
      nodes    = { from = local.inside, tag = null, protocol = "Tcp", ports = ["443", "4443"] }
      balancer = { from = null, tag = "AzureLoadBalancer", protocol = "Tcp", ports = ["9988"] }
    },
    length(var.network.authorised_cidrs) == 0 ? {} : {
      authorised = { from = var.network.authorised_cidrs, tag = null, protocol = "Tcp", ports = ["443"] }
    },
  )
  rules = merge(
    { for subnet in local.node_subnets : subnet => local.node_rules },
    {
      control = local.control_rules
      ingress = {
        callers  = { from = null, tag = "VirtualNetwork", protocol = "Tcp", ports = ["443"] } # this network and what is peered with it
        balancer = { from = null, tag = "AzureLoadBalancer", protocol = "*", ports = ["*"] }
      }
      endpoints = {
        weights = { from = [local.ranges.workers], tag = null, protocol = "Tcp", ports = ["443"] }
        redis   = { from = [local.ranges.head], tag = null, protocol = "Tcp", ports = [tostring(local.redis_port)] }
      }
      database = {
        gateways = { from = [local.ranges.gateway], tag = null, protocol = "Tcp", ports = ["5432"] }
        standby  = { from = [local.ranges.database], tag = null, protocol = "Tcp", ports = ["5432"] }
      }
    },
  )

  # Subnets that belong to an Azure service.
  delegations = {
    control  = "Microsoft.ContainerService/managedClusters"
    ingress  = "Microsoft.Network/applicationGateways"
    database = "Microsoft.DBforPostgreSQL/flexibleServers"
  }
}

resource "azurerm_virtual_network" "this" {
  name                = var.name
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  address_space       = [var.network.cidr]
  tags                = local.tags
}

resource "azurerm_subnet" "this" {
  for_each = local.ranges

  name                              = each.key
  resource_group_name               = azurerm_resource_group.this.name
  virtual_network_name              = azurerm_virtual_network.this.name
  address_prefixes                  = [each.value]
  default_outbound_access_enabled   = false
  private_endpoint_network_policies = "Enabled" # without it the rules below do not hold for endpoints

  dynamic "delegation" {
    for_each = { for subnet, service in local.delegations : subnet => service if subnet == each.key }
    content {
      name = delegation.key
      service_delegation {
        name    = delegation.value
        actions = ["Microsoft.Network/virtualNetworks/subnets/join/action"]
      }
    }
  }
}

resource "azurerm_network_security_group" "this" {
  for_each = local.ranges

  name                = "${var.name}-${each.key}"
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  tags                = local.tags

  dynamic "security_rule" {
    for_each = { for index, name in keys(local.rules[each.key]) : name => merge(local.rules[each.key][name], { priority = 100 + index }) }
    content {
      name                       = security_rule.key
      description                = "To ${each.key}: ${security_rule.key}"
      direction                  = "Inbound"
      access                     = "Allow"
      priority                   = security_rule.value.priority
      protocol                   = security_rule.value.protocol
      source_port_range          = "*"
      source_address_prefix      = security_rule.value.tag
      source_address_prefixes    = security_rule.value.from
      destination_address_prefix = contains(local.node_subnets, each.key) ? "*" : each.value # nodes pass on what is for pods
      destination_port_range     = security_rule.value.ports == ["*"] ? "*" : null
      destination_port_ranges    = security_rule.value.ports == ["*"] ? null : security_rule.value.ports
    }
  }

  # Azure's own last rules would let in everything from this network and from any that is peered.
  security_rule {
    name                       = "refuse"
    description                = "Everything else"
    direction                  = "Inbound"
    access                     = "Deny"
    priority                   = 4096
    protocol                   = "*"
    source_port_range          = "*"
    source_address_prefix      = "*"
    destination_address_prefix = "*"
    destination_port_range     = "*"
  }
}

resource "azurerm_subnet_network_security_group_association" "this" {
  for_each = local.ranges

  subnet_id                 = azurerm_subnet.this[each.key].id
  network_security_group_id = azurerm_network_security_group.this[each.key].id
}

# Names by which what has a private endpoint, and the ledger, are found from inside.
resource "azurerm_private_dns_zone" "this" {
  for_each = {
    weights  = "privatelink.blob.core.windows.net"
    redis    = "privatelink.redis.azure.net"
    database = "${var.name}.private.postgres.database.azure.com"
  }

  name                = each.value
  resource_group_name = azurerm_resource_group.this.name
  tags                = local.tags
}

resource "azurerm_private_dns_zone_virtual_network_link" "this" {
  for_each = azurerm_private_dns_zone.this

  name                = var.name
  private_dns_zone_id = each.value.id
  virtual_network_id  = azurerm_virtual_network.this.id
  tags                = local.tags
}
