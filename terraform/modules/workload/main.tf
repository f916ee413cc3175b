# KubeRay's operator, and the system as `pixtral deploy render` wrote it. A state of its own: providers
# that are configured from a cluster made in the same plan break when the cluster changes, and a
# RayService can be planned only where its definition is known, which a chart does not ask for.

locals {
  platform = jsondecode(file(var.platform_file))
  cluster  = local.platform.cluster

  # Documents begin with a line of three dashes.
  documents = [
    for text in split("\n---\n", trimprefix(trimspace(file(var.manifests_file)), "---\n")) : yamldecode(text)
  ]
  kinds      = [for document in local.documents : document.kind]
  rayservice = one([for document in local.documents : document if document.kind == "RayService"])
  ray        = local.rayservice.spec.rayClusterConfig
  services   = [for document in local.documents : document if document.kind == "Service"]

  # GPUs that the rendered worker groups may hold at once, against what the cluster may.
  gpus_wanted = sum([
    for group in local.ray.workerGroupSpecs :
    group.maxReplicas * tonumber(try(group.template.spec.containers[0].resources.limits["nvidia.com/gpu"], "0"))
  ])
  gpus_there = sum([for pool in local.platform.pools : pool.gpus * pool.max_nodes])

  # The one key of each Secret, as the manifests read it.
  secret_keys = {
    "pixtral-bootstrap-key" = "api_key"
    "pixtral-database"      = "password"
    "pixtral-metrics"       = "token"
    "pixtral-pepper"        = "pepper"
    "pixtral-ray-token"     = "auth_token"
    "pixtral-redis"         = "password"
  }

  dashboards = var.monitoring.dashboards_folder == null ? [] : fileset(var.monitoring.dashboards_folder, "*.json")
}

resource "kubernetes_namespace_v1" "system" {
  metadata {
    name = local.platform.namespace
    labels = {
      "app.kubernetes.io/part-of" = "pixtral"
      # Weights and journals belong to nodes, and the two milder levels know no hostPath.
      # What else a pod of ours would do against the strictest is told and logged.
      "pod-security.kubernetes.io/enforce" = "privileged"
      "pod-security.kubernetes.io/warn"    = "restricted"
      "pod-security.kubernetes.io/audit"   = "restricted"
    }
  }

  lifecycle {
    precondition {
      condition     = alltrue([for document in local.documents : try(document.metadata.namespace, local.platform.namespace) == local.platform.namespace])
      error_message = "manifests_file was rendered for another platform: its namespace is not ${local.platform.namespace}."
    }
  }
}

resource "kubernetes_namespace_v1" "operator" {
  metadata {
    name = "kuberay-system"
    labels = {
      "app.kubernetes.io/part-of"          = "pixtral"
      "pod-security.kubernetes.io/enforce" = "restricted"
    }
  }
}

resource "helm_release" "operator" {
  name       = "kuberay-operator"
  namespace  = kubernetes_namespace_v1.operator.metadata[0].name
  repository = "https://ray-project.github.io/kuberay-helm/"
  chart      = "kuberay-operator"
  version    = var.kuberay_version
  atomic     = true
  timeout    = 600

  # It acts in our namespace only, and may do so nowhere else.
  values = [yamlencode({
    singleNamespaceInstall = true
    watchNamespace         = [kubernetes_namespace_v1.system.metadata[0].name]
    resources              = { requests = { cpu = "100m", memory = "512Mi" }, limits = { memory = "512Mi" } }
    podSecurityContext     = { runAsNonRoot = true, seccompProfile = { type = "RuntimeDefault" } }
  })]
}

resource "helm_release" "system" {
  name      = "pixtral"
  namespace = kubernetes_namespace_v1.system.metadata[0].name
  chart     = "${path.module}/../../charts/pixtral"
  atomic    = false
  # A RayService is accepted at once and is ready when the weights are loaded; `pixtral status` and
  # /readyz say when. Waiting here would undo a slow start.
  wait    = false
  timeout = 600

  values = [yamlencode({
    manifests   = local.documents
    secretStore = var.secret_store
    externalSecrets = [
      for name, secret in var.secrets : { name = name, key = local.secret_keys[name], remote = secret.remote, property = secret.property }
    ]
  })]

  lifecycle {
    precondition {
      condition     = !contains(local.kinds, "Secret")
      error_message = "manifests_file holds a Secret: it would be kept in the state. Secrets come from the store."
    }
    precondition {
      condition     = alltrue([for service in local.services : try(service.spec.type, "ClusterIP") == "ClusterIP"])
      error_message = "manifests_file holds a Service with a way in of its own; callers come through the internal load balancer."
    }
    precondition {
      condition     = try(local.ray.authOptions.mode, "") == "token"
      error_message = "manifests_file leaves Ray's token authentication off."
    }
    precondition {
      condition     = try(local.ray.headGroupSpec.serviceType, "") == "ClusterIP" && !try(local.ray.headGroupSpec.enableIngress, false)
      error_message = "manifests_file shows the head, and with it Ray's dashboard, to the network."
    }
    precondition {
      condition     = anytrue([for document in local.documents : document.kind == "NetworkPolicy" && try(document.spec.podSelector, null) == {} && contains(try(document.spec.policyTypes, []), "Ingress") && !can(document.spec.ingress)])
      error_message = "manifests_file has no NetworkPolicy that denies by default."
    }
    precondition {
      condition     = local.gpus_wanted <= local.gpus_there
      error_message = "manifests_file was rendered for another platform: its groups take ${local.gpus_wanted} GPUs and the pools hold ${local.gpus_there}."
    }
    precondition {
      condition     = !var.deletion_protection || try(local.rayservice.spec.upgradeStrategy.type, "") == "None" || local.gpus_wanted == 0
      error_message = "manifests_file would upgrade by a second cluster, which needs every GPU twice."
    }
  }

  depends_on = [helm_release.operator, helm_release.addon]
}

# For Grafana's sidecar, which picks up what carries this label.
resource "kubernetes_config_map_v1" "dashboard" {
  for_each = toset(local.dashboards)

  metadata {
    name      = "pixtral-dashboard-${trimsuffix(each.value, ".json")}"
    namespace = var.monitoring.namespace
    labels    = { grafana_dashboard = "1" }
  }
  data = { (each.value) = file("${var.monitoring.dashboards_folder}/${each.value}") }
}
