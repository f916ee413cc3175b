# PostgreSQL for the ledger: on a private address, encrypted connections only, restorable to any minute.

resource "google_sql_database_instance" "ledger" {
  name                = "${var.name}-ledger"
  region              = var.location
  database_version    = "POSTGRES_16"
  deletion_protection = var.deletion_protection # against Terraform; the one in settings is against everybody

  settings {
    tier                        = var.database.size
    edition                     = "ENTERPRISE"
    availability_type           = var.database.high_availability ? "REGIONAL" : "ZONAL"
    disk_type                   = "PD_SSD"
    disk_size                   = var.database.storage_gb
    disk_autoresize             = true
    disk_autoresize_limit       = var.database.storage_gb * 4 # growth is wanted, a runaway is not
    deletion_protection_enabled = var.deletion_protection
    user_labels                 = var.labels

    ip_configuration {
      ipv4_enabled       = false
      private_network    = google_compute_network.this.id
      allocated_ip_range = google_compute_global_address.managed.name
      ssl_mode           = "ENCRYPTED_ONLY"
    }

    location_preference {
      zone = var.zones[0]
    }

    backup_configuration {
      enabled                        = true
      point_in_time_recovery_enabled = true
      start_time                     = "01:00"
      transaction_log_retention_days = 7

      backup_retention_settings {
        retained_backups = 30
      }
    }

    maintenance_window {
      day          = 6
      hour         = 2
      update_track = "stable"
    }

    insights_config {
      query_insights_enabled = true
    }

    password_validation_policy {
      enable_password_policy      = true
      min_length                  = 24
      disallow_username_substring = true
    }

    database_flags {
      name  = "log_min_duration_statement"
      value = "1000" # milliseconds
    }
  }

  depends_on = [google_service_networking_connection.managed]
}

resource "google_sql_database" "ledger" {
  name     = "pixtral"
  instance = google_sql_database_instance.ledger.name
}

# The password is written through and kept nowhere, so it is needed only when the user is made; without
# one nobody can log in. To change it later: `gcloud sql users set-password`, then the gateways' secret.
resource "google_sql_user" "gateway" {
  name                = "pixtral"
  instance            = google_sql_database_instance.ledger.name
  password_wo         = var.database_password
  password_wo_version = 1
}
