# With mocked providers: what the module makes of a rendered system, and what it refuses.

mock_provider "helm" {}
mock_provider "kubernetes" {}

variables {
  platform_file       = "../../environments/gcp-prod/workload/example.platform.json"
  manifests_file      = "../../environments/gcp-prod/workload/example.manifests.yaml"
  secret_store        = { name = "pixtral" }
  deletion_protection = true
  secrets = {
    pixtral-bootstrap-key = { remote = "a" }
    pixtral-database      = { remote = "b", property = "password" }
    pixtral-metrics       = { remote = "c" }
    pixtral-pepper        = { remote = "d" }
    pixtral-ray-token     = { remote = "e" }
    pixtral-redis         = { remote = "f" }
  }
}

run "carries_what_was_rendered" {
  command = plan

  assert {
    condition     = helm_release.operator.version == "1.7.0"
    error_message = "The operator must be the version that the manifests are checked against."
  }
  assert {
    condition     = yamldecode(helm_release.operator.values[0]).watchNamespace == ["pixtral"]
    error_message = "The operator must act in the system's namespace only."
  }
  assert {
    condition     = length([for each in yamldecode(helm_release.system.values[0]).manifests : each if each.kind == "RayService"]) == 1
    error_message = "The release must carry the RayService."
  }
  assert {
    condition     = length(yamldecode(helm_release.system.values[0]).externalSecrets) == 6 && !can(yamldecode(helm_release.system.values[0]).externalSecrets[0].value)
    error_message = "Secrets must be references."
  }
  assert {
    condition     = kubernetes_namespace_v1.operator.metadata[0].labels["pod-security.kubernetes.io/enforce"] == "restricted"
    error_message = "The operator's pods must be restricted."
  }
  assert {
    condition     = output.gpus == 20
    error_message = "Four decoder pods of four GPUs and four vision pods of one are 20."
  }
  assert {
    condition     = length(kubernetes_config_map_v1.dashboard) == 0
    error_message = "Without a folder there are no dashboards."
  }
}

run "refuses_a_platform_of_another_shape" {
  command = plan
  variables {
    platform_file = "versions.tf"
  }
  expect_failures = [var.platform_file]
}

run "refuses_manifests_without_a_ray_service" {
  command = plan
  variables {
    manifests_file = "versions.tf"
  }
  expect_failures = [var.manifests_file]
}

run "refuses_manifests_of_a_larger_platform" {
  command = plan
  variables {
    platform_file = "../../environments/gcp-dev/workload/example.platform.json"
  }
  expect_failures = [helm_release.system]
}

run "refuses_a_moving_operator" {
  command = plan
  variables {
    kuberay_version = ">= 1.7"
  }
  expect_failures = [var.kuberay_version]
}

run "refuses_to_forget_a_secret" {
  command = plan
  variables {
    secrets = { pixtral-pepper = { remote = "d" } }
  }
  expect_failures = [var.secrets]
}

run "refuses_a_value_in_place_of_a_name" {
  command = plan
  variables {
    secrets = {
      pixtral-bootstrap-key = { remote = "sk pixtral {value}" }
      pixtral-database      = { remote = "b" }
      pixtral-metrics       = { remote = "c" }
      pixtral-pepper        = { remote = "d" }
      pixtral-ray-token     = { remote = "e" }
      pixtral-redis         = { remote = "f" }
    }
  }
  expect_failures = [var.secrets]
}
