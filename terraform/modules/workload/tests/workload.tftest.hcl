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

run "gke_brings_everything_itself" {
  command = plan

  assert {
    condition     = length(helm_release.addon) == 0
    error_message = "GKE has device plugin, autoscaler and load balancers of its own."
  }
}

run "eks_gets_what_it_lacks" {
  command = plan
  variables {
    platform_file  = "../../environments/aws-prod/workload/example.platform.json"
    manifests_file = "../../environments/aws-prod/workload/example.manifests.yaml"
  }

  assert {
    condition     = { for name, release in helm_release.addon : name => release.version } == { aws-load-balancer-controller = "1.14.1", cluster-autoscaler = "9.52.1", nvidia-device-plugin = "0.18.2" }
    error_message = "Device plugin, autoscaler and load balancer controller, each of one exact version."
  }
  assert {
    condition     = yamldecode(helm_release.addon["aws-load-balancer-controller"].values[0]).ingressClassParams.spec.scheme == "internal"
    error_message = "An Ingress could ask for a public load balancer."
  }
  assert {
    condition     = alltrue([for name in ["enableServiceMutatorWebhook", "enableShield", "enableWaf", "enableWafv2"] : yamldecode(helm_release.addon["aws-load-balancer-controller"].values[0])[name] == false])
    error_message = "The controller would take over Services, or ask for rights that it has not."
  }
  assert {
    condition     = yamldecode(helm_release.addon["aws-load-balancer-controller"].values[0]).vpcId == "vpc-0123456789abcdef0" && yamldecode(helm_release.addon["cluster-autoscaler"].values[0]).autoDiscovery.clusterName == "pixtral-prod"
    error_message = "The controllers would act on another cluster, or ask metadata that does not answer."
  }
  assert {
    condition     = yamldecode(helm_release.addon["aws-load-balancer-controller"].values[0]).serviceAccount.name == "aws-load-balancer-controller" && yamldecode(helm_release.addon["cluster-autoscaler"].values[0]).rbac.serviceAccount.name == "cluster-autoscaler" && alltrue([for release in helm_release.addon : release.namespace == "kube-system"])
    error_message = "Under other names they have no rights (modules/eks/identity.tf)."
  }
}

run "aks_gets_the_device_plugin" {
  command = plan
  variables {
    platform_file  = "../../environments/azure-prod/workload/example.platform.json"
    manifests_file = "../../environments/azure-prod/workload/example.manifests.yaml"
  }

  assert {
    condition     = keys(helm_release.addon) == ["nvidia-device-plugin"]
    error_message = "AKS scales pools and fills its gateway by itself; it installs drivers only."
  }
  assert {
    condition     = toset(yamldecode(helm_release.addon["nvidia-device-plugin"].values[0]).tolerations[*].key) == toset(["nvidia.com/gpu", "pixtral.ai/tier"])
    error_message = "The device plugin would not get onto GPU nodes."
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
