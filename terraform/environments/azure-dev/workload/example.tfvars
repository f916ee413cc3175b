# Every value is yours to replace.
platform_file      = "example.platform.json"
manifests_file     = "example.manifests.yaml"
kubeconfig         = "~/.kube/config"
kubeconfig_context = "pixtral-dev"
secret_store       = { name = "pixtral" }
secrets = {
  pixtral-bootstrap-key = { remote = "pixtral/dev/bootstrap-key" }
  pixtral-database      = { remote = "pixtral/dev/database" }
  pixtral-metrics       = { remote = "pixtral/dev/metrics-token" }
  pixtral-pepper        = { remote = "pixtral/dev/pepper" }
  pixtral-ray-token     = { remote = "pixtral/dev/ray-token" }
  pixtral-redis         = { remote = "pixtral/dev/redis" }
}
