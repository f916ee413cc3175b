# What is refused before anything is planned.

mock_provider "aws" {
  source = "./tests/mocks"
}

run "a_missing_tier_is_refused" {
  command = plan

  variables {
    tiers = { for tier, pool in var.tiers : tier => pool if tier != "preprocess" }
  }

  expect_failures = [var.tiers]
}

run "an_unknown_machine_is_refused" {
  command = plan

  variables {
    tiers = merge(var.tiers, { decoder = merge(var.tiers.decoder, { machine_type = "p4d.24xlarge" }) })
  }

  expect_failures = [var.tiers]
}

run "half_a_machine_is_refused" {
  command = plan

  variables {
    tiers = merge(var.tiers, { decoder = merge(var.tiers.decoder, { gpus = 4 }) })
  }

  expect_failures = [var.tiers]
}

run "a_decoder_on_a_machine_too_small_is_refused" {
  command = plan

  variables {
    tiers = merge(var.tiers, { decoder = merge(var.tiers.decoder, { machine_type = "g6.2xlarge", gpus = 1 }) })
  }

  expect_failures = [var.tiers]
}

run "a_spot_decoder_is_refused" {
  command = plan

  variables {
    tiers = merge(var.tiers, { decoder = merge(var.tiers.decoder, { spot = true, reservation = null }) })
  }

  expect_failures = [var.tiers]
}

run "spot_with_a_reservation_is_refused" {
  command = plan

  variables {
    tiers = merge(var.tiers, { vision = merge(var.tiers.vision, { spot = true, reservation = "cr-0123456789abcdef0" }) })
  }

  expect_failures = [var.tiers]
}

run "an_unbounded_pool_is_refused" {
  command = plan

  variables {
    tiers = merge(var.tiers, { preprocess = merge(var.tiers.preprocess, { max_nodes = 1000 }) })
  }

  expect_failures = [var.tiers]
}

run "more_gpu_nodes_than_allowed_are_refused" {
  command = plan

  variables {
    max_gpu_nodes = 5
  }

  expect_failures = [var.max_gpu_nodes]
}

run "what_aws_does_not_take_is_refused" {
  command = plan

  variables {
    max_gpu_nodes     = 33
    network           = merge(var.network, { authorised_cidrs = ["0.0.0.0/0"] })
    zones             = ["us-east-1d"]
    database_password = "made-up-and-long-enough-for-all"
    redis             = merge(var.redis, { memory_gb = 100 })
  }

  expect_failures = [var.max_gpu_nodes, var.network, var.zones, var.database_password, var.redis]
}

run "the_whole_internet_by_ipv6_and_a_zone_elsewhere_are_refused" {
  command = plan

  variables {
    network = merge(var.network, { authorised_cidrs = ["::/0"] })
    zones   = ["us-east-1d", "us-west-2a"]
  }

  expect_failures = [var.network, var.zones]
}
