# How the gateway is reached: an application gateway with a private address only, filled by AKS's
# controller from the workload's Ingress. The certificate is the workload's (a TLS secret named in the
# Ingress). Not the nginx add-on: Microsoft supports it until November 2026
# (https://learn.microsoft.com/azure/aks/app-routing-gateway-api).
#
# A gateway without a public address needs a feature of the subscription, once:
# az feature register --namespace Microsoft.Network --name EnableApplicationGatewayNetworkIsolation

locals {
  ingress = {
    class        = "azure-application-gateway"
    source_cidrs = [local.ranges.ingress]
    annotations = {
      "appgw.ingress.kubernetes.io/use-private-ip"              = "true"
      "appgw.ingress.kubernetes.io/ssl-redirect"                = "true"
      "appgw.ingress.kubernetes.io/health-probe-path"           = "/healthz"
      "appgw.ingress.kubernetes.io/connection-draining"         = "true"
      "appgw.ingress.kubernetes.io/connection-draining-timeout" = "600"
      # Seconds. A stream may be silent while it waits its turn.
      "appgw.ingress.kubernetes.io/request-timeout" = "600"
    }
  }

  # Azure wants a whole gateway when it makes one. The controller replaces all of these parts.
  placeholder = "none-yet"
}

resource "azurerm_application_gateway" "this" {
  name                = var.name
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  zones               = var.zones
  http2_enabled       = true
  tags                = local.tags

  sku {
    name = "Standard_v2"
    tier = "Standard_v2"
  }
  autoscale_configuration {
    min_capacity = 1
    max_capacity = 4
  }

  # Answers stream: a buffer would hold tokens back.
  global {
    request_buffering_enabled  = true
    response_buffering_enabled = false
  }

  ssl_policy {
    policy_type = "Predefined"
    policy_name = "AppGwSslPolicy20220101" # TLS 1.2 and newer
  }

  gateway_ip_configuration {
    name      = "gateway"
    subnet_id = azurerm_subnet.this["ingress"].id
  }
  frontend_ip_configuration {
    name                          = "private"
    subnet_id                     = azurerm_subnet.this["ingress"].id
    private_ip_address_allocation = "Static"
    private_ip_address            = cidrhost(local.ranges.ingress, 10) # Azure keeps the first four
  }

  frontend_port {
    name = local.placeholder
    port = 443
  }
  backend_address_pool {
    name = local.placeholder
  }
  backend_http_settings {
    name                  = local.placeholder
    protocol              = "Http"
    port                  = 8000
    cookie_based_affinity = "Disabled"
    request_timeout       = 600
  }
  http_listener {
    name                           = local.placeholder
    protocol                       = "Http"
    frontend_ip_configuration_name = "private"
    frontend_port_name             = local.placeholder
  }
  request_routing_rule {
    name                       = local.placeholder
    rule_type                  = "Basic"
    priority                   = 1
    http_listener_name         = local.placeholder
    backend_address_pool_name  = local.placeholder
    backend_http_settings_name = local.placeholder
  }

  lifecycle {
    ignore_changes = [
      backend_address_pool,
      backend_http_settings,
      frontend_port,
      http_listener,
      probe,
      redirect_configuration,
      request_routing_rule,
      ssl_certificate,
      tags,
      url_path_map,
    ]
  }

  depends_on = [azurerm_subnet_network_security_group_association.this]
}

# The controller's identity is made with the cluster. It changes this gateway and joins its subnet.
locals {
  ingress_controller = azurerm_kubernetes_cluster.this.ingress_application_gateway[0].ingress_application_gateway_identity[0].object_id
}

resource "azurerm_role_assignment" "ingress" {
  for_each = {
    gateway = { scope = azurerm_application_gateway.this.id, role = "Contributor" }
    subnet  = { scope = azurerm_subnet.this["ingress"].id, role = "Network Contributor" }
    group   = { scope = azurerm_resource_group.this.id, role = "Reader" }
  }

  scope                = each.value.scope
  role_definition_name = each.value.role
  principal_id         = local.ingress_controller
  principal_type       = "ServicePrincipal"
}
