# Who may do what. Tiers are known to Google Cloud by their Kubernetes service accounts themselves
# (workload identity federation): no keys, no Google service accounts in between, no annotations.

locals {
  service_accounts = {
    for name in keys(var.tiers) : name => {
      name        = "pixtral-${name}"
      annotations = tomap({})
      labels      = tomap({})
    }
  }

  principals = {
    for name, account in local.service_accounts : name => join("/", [
      "principal://iam.googleapis.com/projects/${data.google_project.this.number}/locations/global/workloadIdentityPools",
      "${local.project}.svc.id.goog/subject/ns/${local.namespace}/sa/${account.name}",
    ])
  }
}

# The nodes' own identity: logs, metrics, images; nothing that pods need. The gateway needs none
# either: it reaches the database by address and password.
resource "google_service_account" "nodes" {
  account_id   = "${var.name}-nodes"
  display_name = "Nodes of ${var.name}"

  depends_on = [google_project_service.needed]
}

resource "google_project_iam_member" "nodes" {
  for_each = toset(["roles/container.defaultNodeServiceAccount", "roles/artifactregistry.reader"])

  project = local.project
  role    = each.key
  member  = "serviceAccount:${google_service_account.nodes.email}"
}
