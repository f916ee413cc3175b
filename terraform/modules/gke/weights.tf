# The model's weights, in the region where they are read. Encrypted by Google's keys.

resource "google_storage_bucket" "weights" {
  name                        = var.weights.bucket
  location                    = var.location
  storage_class               = "STANDARD"
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = !var.deletion_protection
  labels                      = var.labels

  versioning {
    enabled = true
  }

  # A quarter of a terabyte a version: the one before the last is enough.
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      num_newer_versions = 2
      with_state         = "ARCHIVED"
    }
  }

  depends_on = [google_project_service.needed]
}

# The two tiers that load weights may read them; nobody in the cluster may write.
resource "google_storage_bucket_iam_member" "weights_reader" {
  for_each = toset(["vision", "decoder"])

  bucket = google_storage_bucket.weights.name
  role   = "roles/storage.objectViewer"
  member = local.principals[each.key]

  depends_on = [google_container_cluster.this] # makes the workload identity pool
}
