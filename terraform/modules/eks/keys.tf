# One key for each thing that is kept, so that the right to read weights is no right to read accounts.

data "aws_caller_identity" "this" {}

locals {
  account = data.aws_caller_identity.this.account_id
}

resource "aws_kms_key" "this" {
  for_each = {
    cluster = "Kubernetes secrets"
    weights = "the weights bucket"
    data    = "the ledger, its password, and Ray's state"
  }

  description             = "${var.name}: ${each.value}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  tags                    = merge(local.tags, { Name = "${var.name}-${each.key}" })
}

resource "aws_kms_alias" "this" {
  for_each = aws_kms_key.this

  name          = "alias/${var.name}-${each.key}"
  target_key_id = each.value.key_id
}
