# The bucket that holds the model's weights. An operator uploads them once (`pixtral weights`);
# vision and decoder nodes read them.

locals {
  # Not asked of the bucket, so that a plan shows whole policies before there is one.
  weights_arn = "arn:aws:s3:::${var.weights.bucket}"
}

resource "aws_s3_bucket" "weights" {
  bucket        = var.weights.bucket
  force_destroy = false
  tags          = local.tags
}

resource "aws_s3_bucket_public_access_block" "weights" {
  bucket = aws_s3_bucket.weights.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "weights" {
  bucket = aws_s3_bucket.weights.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_versioning" "weights" {
  bucket = aws_s3_bucket.weights.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "weights" {
  bucket = aws_s3_bucket.weights.id

  rule {
    # One call to KMS for many objects instead of one for each.
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.this["weights"].arn
    }
  }
}

# A quarter of a terabyte a version: an old one is kept as long as a rollback is likely.
resource "aws_s3_bucket_lifecycle_configuration" "weights" {
  bucket = aws_s3_bucket.weights.id

  rule {
    id     = "old-versions"
    status = "Enabled"
    filter {}
    noncurrent_version_expiration {
      noncurrent_days = 30
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  depends_on = [aws_s3_bucket_versioning.weights]
}

resource "aws_s3_bucket_policy" "weights" {
  bucket = aws_s3_bucket.weights.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [{
        Sid       = "TlsOnly"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [local.weights_arn, "${local.weights_arn}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      }],
      var.deletion_protection ? [{
        Sid       = "DeletionProtection"
        Effect    = "Deny"
        Principal = "*"
        Action    = ["s3:DeleteBucket", "s3:DeleteObjectVersion"]
        Resource  = [local.weights_arn, "${local.weights_arn}/*"]
      }] : [],
    )
  })

  depends_on = [aws_s3_bucket_public_access_block.weights]
}
