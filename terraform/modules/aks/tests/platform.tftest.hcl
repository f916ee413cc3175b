# What `pixtral deploy render` gets to know.

mock_provider "azurerm" {
  source = "./tests/mocks"
}

run "the_platform_says_what_the_workload_needs" {
  variables {
    database_password = "never-to-be-seen-again-1234"
  }

  assert {
    condition     = output.platform.cloud == "azure" && output.platform.weights_uri == "az://testweights/weights/weights"
    error_message = "The workload would look for the weights elsewhere."
  }
  assert {
    condition     = output.platform.pools.decoder.groups_per_node == 2 && output.platform.pools.vision.groups_per_node == 0
    error_message = "An ND96amsr_A100_v4 holds two groups of four ranks."
  }
  assert {
    condition     = output.platform.database == { host = "pixtral-test-ledger.postgres.database.azure.com", port = 5432, name = "pixtral", user = "pixtral", tls = "require" }
    error_message = "The gateways would not find the ledger."
  }
  assert {
    condition     = output.platform.redis == { host = "pixtral-test-gcs.eastus.redis.azure.net", port = 10000, tls = true, ca = null }
    error_message = "The head would not find Redis."
  }
  assert {
    condition     = keys(output.platform.service_accounts) == ["decoder", "gateway", "head", "preprocess", "vision"] && output.platform.namespace == "pixtral"
    error_message = "The service accounts are not those that the grants are for."
  }
  assert {
    condition = output.platform.service_accounts.decoder == {
      name        = "pixtral-decoder"
      annotations = tomap({ "azure.workload.identity/client-id" = "reader-client" })
      labels      = tomap({ "azure.workload.identity/use" = "true" })
    }
    error_message = "The decoder could not log in to read the weights."
  }
  assert {
    condition     = alltrue([for name in ["head", "gateway", "preprocess"] : length(output.platform.service_accounts[name].annotations) == 0])
    error_message = "A tier that reads no weights has an identity."
  }
  assert {
    condition     = output.platform.pools.decoder.local_ssd_path == "/mnt/pixtral-nvme" && output.platform.pools.head.local_ssd_path == null
    error_message = "Weights belong on the local NVMe disks."
  }
  assert {
    condition     = contains(output.platform.pools.decoder.tolerations, { key = "nvidia.com/gpu", operator = "Equal", value = "present", effect = "NoSchedule" })
    error_message = "The decoder could not be put on its own nodes."
  }
  assert {
    condition     = output.platform.nccl_env.NCCL_P2P_LEVEL == "NVL" && output.platform.gpu_nodes_max == 8
    error_message = "NCCL's settings or the bound on GPU nodes are not handed on."
  }
  assert {
    condition     = output.platform.ingress.class == "azure-application-gateway" && output.platform.ingress.annotations["appgw.ingress.kubernetes.io/use-private-ip"] == "true" && output.platform.ingress.source_cidrs == ["10.20.160.0/20"]
    error_message = "The gateway belongs behind the private application gateway."
  }
  assert {
    condition     = output.cost_inputs.decoder == { machine_type = "Standard_ND96amsr_A100_v4", max_nodes = 4 }
    error_message = "The ceiling would be reckoned from something else."
  }
  assert {
    condition     = azurerm_postgresql_flexible_server.ledger.administrator_password == null && azurerm_postgresql_flexible_server.ledger.administrator_password_wo == null && !strcontains(jsonencode(output.platform), "never-to-be-seen")
    error_message = "The password is kept."
  }
  assert {
    condition     = azurerm_consumption_budget_subscription.this.subscription_id == "/subscriptions/00000000-0000-0000-0000-000000000000"
    error_message = "The budget is not the subscription's."
  }
}

run "four_pcie_gpus_hold_one_group" {
  command = plan

  variables {
    tiers = merge(var.tiers, { decoder = merge(var.tiers.decoder, { machine_type = "Standard_NC96ads_A100_v4", gpus = 4 }) })
  }

  assert {
    condition     = local.pools.decoder.groups_per_node == 1
    error_message = "Eight ranks do not fit on four GPUs."
  }
  assert {
    condition     = !contains(keys(local.nccl_env), "NCCL_P2P_LEVEL") && local.nccl_env.NCCL_IB_DISABLE == "1"
    error_message = "Not every pair has NVLink there: NCCL would refuse to start."
  }
}

run "one_gpu_needs_no_nccl" {
  command = plan

  variables {
    tiers = merge(var.tiers, { decoder = merge(var.tiers.decoder, { machine_type = "Standard_NC24ads_A100_v4", gpus = 1 }) })
  }

  assert {
    condition     = length(local.nccl_env) == 0 && local.pools.decoder.groups_per_node == 1
    error_message = "A group of one rank talks to nobody."
  }
}
