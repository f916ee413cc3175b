terraform {
  required_version = ">= 1.11, < 2.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "= 6.69.1"
    }
  }

  # Bucket and region are named at init: terraform init -backend-config=example.s3.tfbackend
  backend "s3" {
    key          = "pixtral/aws-dev/cluster.tfstate"
    encrypt      = true
    use_lockfile = true
  }
}

# Credentials come from the caller's environment (aws sso login), never from a file here.
provider "aws" {
  region = var.location
}
