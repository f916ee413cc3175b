# What Google would answer, where the module reads into it.

mock_data "google_project" {
  defaults = {
    id              = "projects/test-project"
    number          = "123456789012"
    billing_account = "000000-000000-000000"
  }
}

mock_resource "google_memorystore_instance" {
  defaults = {
    managed_server_ca = [{ ca_certs = [{ certificates = ["-----BEGIN CERTIFICATE-----\ntest\n-----END CERTIFICATE-----"] }] }]
    endpoints = [{
      connections = [
        { psc_auto_connection = [{
          connection_type    = "CONNECTION_TYPE_READER"
          forwarding_rule    = "rule"
          ip_address         = "10.20.224.6"
          network            = "network"
          port               = 6379
          project_id         = "test-project"
          psc_connection_id  = "2"
          service_attachment = "attachment"
        }] },
        { psc_auto_connection = [{
          connection_type    = "CONNECTION_TYPE_PRIMARY"
          forwarding_rule    = "rule"
          ip_address         = "10.20.224.5"
          network            = "network"
          port               = 6379
          project_id         = "test-project"
          psc_connection_id  = "1"
          service_attachment = "attachment"
        }] },
      ]
    }]
  }
}

mock_resource "google_sql_database_instance" {
  defaults = { private_ip_address = "10.20.192.3" }
}

mock_resource "google_service_account" {
  defaults = { email = "nodes@test-project.iam.gserviceaccount.com" }
}
