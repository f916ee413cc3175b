terraform {
  required_version = ">= 1.11, < 2.0"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "= 8.7.0"
    }
  }

  # The bucket is named at init: terraform init -backend-config=example.gcs.tfbackend
  backend "gcs" {
    prefix = "pixtral/gcp-prod/cluster"
  }
}

# Credentials come from the caller's environment (gcloud auth application-default login), never a file.
provider "google" {
  project               = var.project
  region                = var.location
  user_project_override = true # the budget is asked for in the project's name
  billing_project       = var.project
}
