# What is refused before anything is planned. A run has two mistakes, in variables that do not depend on
# each other, and each has to be noticed.

mock_provider "azurerm" {
  source = "./tests/mocks"
}

run "a_missing_tier_and_a_zone_of_another_cloud" {
  command = plan

  variables {
    tiers = { for name, tier in var.tiers : name => tier if name != "preprocess" }
    zones = ["eastus-1"]
  }

  expect_failures = [var.tiers, var.zones]
}

run "a_misnamed_tier_and_a_name_in_capitals" {
  command = plan

  variables {
    tiers = merge({ for name, tier in var.tiers : name => tier if name != "decoder" }, { decoders = var.tiers.decoder })
    name  = "Pixtral"
  }

  expect_failures = [var.tiers, var.name]
}

run "an_unknown_machine_and_the_whole_internet" {
  command = plan

  variables {
    tiers   = merge(var.tiers, { decoder = merge(var.tiers.decoder, { machine_type = "Standard_ND96asr_v4" }) })
    network = merge(var.network, { authorised_cidrs = ["10.200.0.0/24", "0.0.0.0/0"] })
  }

  expect_failures = [var.tiers, var.network]
}

run "gpus_that_the_machine_has_not_and_the_internet_by_ipv6" {
  command = plan

  variables {
    tiers   = merge(var.tiers, { decoder = merge(var.tiers.decoder, { gpus = 4 }) })
    network = merge(var.network, { authorised_cidrs = ["::/0"] })
  }

  expect_failures = [var.tiers, var.network]
}

run "a_gateway_with_gpus_and_no_address_range" {
  command = plan

  variables {
    tiers   = merge(var.tiers, { gateway = merge(var.tiers.gateway, { machine_type = "Standard_NV36ads_A10_v5", gpus = 1 }) })
    network = merge(var.network, { pods_cidr = "10.24.0.0" })
  }

  expect_failures = [var.tiers, var.network]
}

run "a_decoder_on_too_small_a_machine_and_too_small_a_network" {
  command = plan

  variables {
    tiers   = merge(var.tiers, { decoder = merge(var.tiers.decoder, { machine_type = "Standard_NV36ads_A10_v5", gpus = 1 }) })
    network = merge(var.network, { cidr = "10.20.0.0/24" })
  }

  expect_failures = [var.tiers, var.network]
}

run "vision_without_gpus_and_a_short_password" {
  command = plan

  variables {
    tiers             = merge(var.tiers, { vision = merge(var.tiers.vision, { machine_type = "Standard_D8s_v5", gpus = 0 }) })
    database_password = "hunter2"
  }

  expect_failures = [var.tiers, var.database_password]
}

run "more_at_least_than_at_most_and_an_alert_for_nobody" {
  command = plan

  variables {
    tiers  = merge(var.tiers, { gateway = merge(var.tiers.gateway, { min_nodes = 5 }) })
    budget = merge(var.budget, { emails = [] })
  }

  expect_failures = [var.tiers, var.budget]
}

run "a_pool_without_a_sensible_bound_and_redis_beyond_its_size" {
  command = plan

  variables {
    tiers = merge(var.tiers, { gateway = merge(var.tiers.gateway, { max_nodes = 1000 }) })
    redis = merge(var.redis, { memory_gb = 58 })
  }

  expect_failures = [var.tiers, var.redis]
}

run "a_spot_decoder_and_a_storage_account_with_a_dash" {
  command = plan

  variables {
    tiers   = merge(var.tiers, { decoder = merge(var.tiers.decoder, { spot = true }) })
    weights = merge(var.weights, { bucket = "test-weights" })
  }

  expect_failures = [var.tiers, var.weights]
}

run "a_reservation_without_an_id_and_a_standby_of_a_burstable_database" {
  command = plan

  variables {
    tiers    = merge(var.tiers, { decoder = merge(var.tiers.decoder, { reservation = "pixtral-a100" }) })
    database = merge(var.database, { size = "B_Standard_B2s" })
  }

  expect_failures = [var.tiers, var.database]
}

run "more_gpu_nodes_than_the_bound_and_a_disk_that_azure_has_not" {
  command = plan

  variables {
    max_gpu_nodes = 7
    database      = merge(var.database, { storage_gb = 100 })
  }

  expect_failures = [var.max_gpu_nodes, var.database]
}

run "a_bound_beyond_reason_and_more_notices_than_azure_sends" {
  command = plan

  variables {
    max_gpu_nodes = 33
    budget        = merge(var.budget, { thresholds = [0.2, 0.4, 0.6, 0.8, 1] })
  }

  expect_failures = [var.max_gpu_nodes, var.budget]
}
