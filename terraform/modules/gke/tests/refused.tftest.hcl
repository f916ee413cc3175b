# What is refused before anything is planned. A run passes only if every variable that it names is refused;
# one run is one mistake in tiers, or one in each of several other variables.

mock_provider "google" {
  source = "./tests/mocks"
}

run "a_missing_tier_is_refused" {
  command = plan

  variables {
    tiers = { for name, tier in var.tiers : name => tier if name != "preprocess" }
  }

  expect_failures = [var.tiers]
}

run "a_misnamed_tier_is_refused" {
  command = plan

  variables {
    tiers = merge({ for name, tier in var.tiers : name => tier if name != "decoder" }, { decoders = var.tiers.decoder })
  }

  expect_failures = [var.tiers]
}

run "an_unknown_machine_is_refused" {
  command = plan

  variables {
    tiers = merge(var.tiers, { decoder = merge(var.tiers.decoder, { machine_type = "a2-highgpu-4g" }) })
  }

  expect_failures = [var.tiers]
}

run "a_number_of_gpus_that_the_machine_has_not_is_refused" {
  command = plan

  variables {
    tiers = merge(var.tiers, { decoder = merge(var.tiers.decoder, { gpus = 8 }) })
  }

  expect_failures = [var.tiers]
}

run "a_gateway_with_gpus_is_refused" {
  command = plan

  variables {
    tiers = merge(var.tiers, { gateway = merge(var.tiers.gateway, { machine_type = "g2-standard-8", gpus = 1 }) })
  }

  expect_failures = [var.tiers]
}

run "a_decoder_on_a_machine_too_small_is_refused" {
  command = plan

  variables {
    tiers = merge(var.tiers, { decoder = merge(var.tiers.decoder, { machine_type = "g2-standard-8", gpus = 1 }) })
  }

  expect_failures = [var.tiers]
}

run "vision_without_gpus_of_its_own_is_refused" {
  command = plan

  variables {
    tiers = merge(var.tiers, { vision = merge(var.tiers.vision, { machine_type = "n2-standard-8", gpus = 0 }) })
  }

  expect_failures = [var.tiers]
}

run "more_at_least_than_at_most_is_refused" {
  command = plan

  variables {
    tiers = merge(var.tiers, { gateway = merge(var.tiers.gateway, { min_nodes = 5 }) })
  }

  expect_failures = [var.tiers]
}

run "a_pool_without_a_sensible_bound_is_refused" {
  command = plan

  variables {
    tiers = merge(var.tiers, { gateway = merge(var.tiers.gateway, { max_nodes = 1000 }) })
  }

  expect_failures = [var.tiers]
}

run "a_spot_decoder_is_refused" {
  command = plan

  variables {
    tiers = merge(var.tiers, { decoder = merge(var.tiers.decoder, { spot = true }) })
  }

  expect_failures = [var.tiers]
}

run "more_gpu_nodes_than_the_bound_is_refused" {
  command = plan

  variables {
    max_gpu_nodes = 7
    network       = merge(var.network, { authorised_cidrs = ["10.200.0.0/24", "0.0.0.0/0"] })
    zones         = ["europe-west4-a"]
  }

  expect_failures = [var.max_gpu_nodes, var.network, var.zones]
}

run "a_bound_beyond_reason_is_refused" {
  command = plan

  variables {
    max_gpu_nodes = 33
    network       = merge(var.network, { authorised_cidrs = ["::/0"] })
    name          = "Pixtral"
  }

  expect_failures = [var.max_gpu_nodes, var.network, var.name]
}

run "a_network_too_small_is_refused" {
  command = plan

  variables {
    network           = merge(var.network, { cidr = "10.20.0.0/24" })
    database_password = "hunter2"
    budget            = merge(var.budget, { emails = [] })
  }

  expect_failures = [var.network, var.database_password, var.budget]
}

run "what_is_no_address_range_is_refused" {
  command = plan

  variables {
    network = merge(var.network, { pods_cidr = "10.24.0.0" })
  }

  expect_failures = [var.network]
}
