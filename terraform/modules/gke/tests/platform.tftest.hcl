# What `pixtral deploy render` gets to know.

mock_provider "google" {
  source = "./tests/mocks"
}

run "the_platform_says_what_the_workload_needs" {
  variables {
    database_password = "never-to-be-seen-again-1234"
  }

  assert {
    condition     = output.platform.pools.decoder.groups_per_node == 1 && output.platform.pools.vision.groups_per_node == 0
    error_message = "An a2-ultragpu-4g holds one group of four ranks."
  }
  assert {
    condition     = output.platform.weights_uri == "gs://test-weights/weights"
    error_message = "The workload would look for the weights elsewhere."
  }
  assert {
    condition     = output.platform.database.host == "10.20.192.3" && output.platform.database.tls == "require" && output.platform.redis.host == "10.20.224.5" && output.platform.redis.tls
    error_message = "Database and Redis are reached on private addresses, by TLS."
  }
  assert {
    condition     = keys(output.platform.service_accounts) == ["decoder", "gateway", "head", "preprocess", "vision"] && output.platform.service_accounts.decoder.name == "pixtral-decoder" && output.platform.namespace == "pixtral"
    error_message = "The service accounts are not those that the grants are for."
  }
  assert {
    condition     = output.platform.pools.decoder.local_ssd_path == "/mnt/stateful_partition/kube-ephemeral-ssd/pixtral" && output.platform.pools.head.local_ssd_path == null
    error_message = "Weights belong on the local SSDs."
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
    condition     = output.platform.ingress.class == "gce-internal" && output.platform.ingress.annotations["kubernetes.io/ingress.class"] == "gce-internal" && output.platform.ingress.annotations["kubernetes.io/ingress.allow-http"] == "false"
    error_message = "The gateway belongs behind the internal load balancer, by TLS only."
  }
  assert {
    condition     = toset(output.platform.ingress.source_cidrs) == google_compute_firewall.gateway.source_ranges
    error_message = "Firewall and network policy would disagree on who may call the gateway."
  }
  assert {
    condition     = output.cost_inputs.decoder == { machine_type = "a2-ultragpu-4g", max_nodes = 4 }
    error_message = "The ceiling would be reckoned from something else."
  }
  assert {
    condition     = google_sql_user.gateway.password == null && google_sql_user.gateway.password_wo == null && !strcontains(jsonencode(output.platform), "never-to-be-seen")
    error_message = "The password is kept."
  }
}

run "an_eight_gpu_machine_holds_two_groups" {
  command = plan

  variables {
    tiers = merge(var.tiers, { decoder = merge(var.tiers.decoder, { machine_type = "a2-ultragpu-8g", gpus = 8 }) })
  }

  assert {
    condition     = local.pools.decoder.groups_per_node == 2
    error_message = "Half of the machine would stand idle."
  }
}
