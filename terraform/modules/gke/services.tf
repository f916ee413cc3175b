# The project that everything is made in is the provider's own, which is what is meant where none is
# named. Not asked of google_client_config: that would keep the caller's access token in the state.
data "google_project" "this" {}

locals {
  project = trimprefix(data.google_project.this.id, "projects/")
}

# Left on when this is destroyed: others in the project may use them too.
resource "google_project_service" "needed" {
  for_each = toset([
    "artifactregistry.googleapis.com",
    "billingbudgets.googleapis.com",
    "compute.googleapis.com",
    "container.googleapis.com",
    "containerfilesystem.googleapis.com", # image streaming
    "memorystore.googleapis.com",
    "monitoring.googleapis.com",
    "networkconnectivity.googleapis.com",
    "servicenetworking.googleapis.com",
    "sqladmin.googleapis.com",
    "storage.googleapis.com",
  ])

  service            = each.key
  disable_on_destroy = false
}
