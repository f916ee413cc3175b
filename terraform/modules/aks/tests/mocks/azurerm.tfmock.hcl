# What Azure would answer, where the module reads into it.

mock_resource "azurerm_resource_group" {
  defaults = { id = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/pixtral-test" }
}

mock_resource "azurerm_kubernetes_cluster" {
  defaults = {
    oidc_issuer_url = "https://issuer.example.com/"
    ingress_application_gateway = {
      ingress_application_gateway_identity = [{
        client_id                 = "controller-client"
        object_id                 = "controller-object"
        user_assigned_identity_id = "controller"
      }]
    }
  }
}

mock_resource "azurerm_user_assigned_identity" {
  defaults = { client_id = "reader-client" }
}

mock_resource "azurerm_postgresql_flexible_server" {
  defaults = { fqdn = "pixtral-test-ledger.postgres.database.azure.com" }
}

mock_resource "azurerm_resource_group_template_deployment" {
  defaults = {
    output_content = "{\"host\":{\"type\":\"String\",\"value\":\"pixtral-test-gcs.eastus.redis.azure.net\"}}"
  }
}
