# Every value is yours to replace.
platform_file      = "example.platform.json"
manifests_file     = "example.manifests.yaml"
kubeconfig         = "~/.kube/config"
kubeconfig_context = "pixtral-prod"
secret_store       = { name = "pixtral" }
secrets = {
  pixtral-bootstrap-key = { remote = "pixtral/prod/bootstrap-key" }
  pixtral-database      = { remote = "pixtral/prod/database", property = "password" }
  pixtral-metrics       = { remote = "pixtral/prod/metrics-token" }
  pixtral-pepper        = { remote = "pixtral/prod/pepper" }
  pixtral-ray-token     = { remote = "pixtral/prod/ray-token" }
  pixtral-redis         = { remote = "pixtral/prod/redis" }
}
