# What runs on the cluster of ../cluster: KubeRay's operator and the rendered system.
#
#   terraform -chdir=../cluster output -json platform > platform.json
#   pixtral deploy render --config prod.yaml --platform platform.json --image REF --output manifests.yaml
#   terraform apply -var platform_file=platform.json -var manifests_file=manifests.yaml …

module "workload" {
  source = "../../../modules/workload"

  platform_file       = "${path.root}/${var.platform_file}"
  manifests_file      = "${path.root}/${var.manifests_file}"
  secret_store        = var.secret_store
  secrets             = var.secrets
  monitoring          = var.monitoring
  deletion_protection = false
}
