terraform {
  required_version = ">= 1.11, < 2.0"

  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "= 5.10.0"
    }
  }

  # The storage account is named at init: terraform init -backend-config=example.azurerm.tfbackend
  backend "azurerm" {
    key              = "pixtral/azure-dev/cluster.tfstate"
    use_azuread_auth = true
  }
}

# Credentials come from the caller's environment (az login), never a file.
provider "azurerm" {
  subscription_id     = var.subscription_id
  storage_use_azuread = true # the account of the weights has no keys

  resource_providers_to_register = [
    "Microsoft.Cache",
    "Microsoft.Compute",
    "Microsoft.Consumption",
    "Microsoft.ContainerService",
    "Microsoft.DBforPostgreSQL",
    "Microsoft.ManagedIdentity",
    "Microsoft.Network",
    "Microsoft.Storage",
  ]

  features {
    resource_group {
      prevent_deletion_if_contains_resources = true
    }
  }
}
