# Where Ray's head keeps what must survive it (GCS fault tolerance). Whoever can write here can run
# code in the cluster: only head nodes reach it, only by TLS, and its one user is switched off until
# an operator has given it a password (README.md). Terraform never learns that password.

locals {
  # Memory in GiB of ElastiCache's node types, smallest first, as AWS publishes them.
  redis_sizes = [
    { type = "cache.t4g.small", memory_gb = 1.37 },
    { type = "cache.t4g.medium", memory_gb = 3.09 },
    { type = "cache.m7g.large", memory_gb = 6.38 },
    { type = "cache.m7g.xlarge", memory_gb = 12.93 },
    { type = "cache.m7g.2xlarge", memory_gb = 26.04 },
    { type = "cache.m7g.4xlarge", memory_gb = 52.26 },
  ]
  redis_type = [for size in local.redis_sizes : size.type if size.memory_gb >= var.redis.memory_gb][0]
}

resource "aws_elasticache_replication_group" "ray" {
  replication_group_id = "${var.name}-ray"
  description          = "Ray's state"
  engine               = "redis"
  engine_version       = "7.1"
  node_type            = local.redis_type
  port                 = 6379
  tags                 = local.tags

  num_cache_clusters         = var.redis.high_availability ? 2 : 1
  automatic_failover_enabled = var.redis.high_availability
  multi_az_enabled           = var.redis.high_availability
  snapshot_retention_limit   = 1

  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  at_rest_encryption_enabled = "true"
  kms_key_id                 = aws_kms_key.this["data"].arn
  user_group_ids             = [aws_elasticache_user_group.ray.id]

  subnet_group_name          = aws_elasticache_subnet_group.ray.name
  security_group_ids         = [aws_security_group.ray.id]
  auto_minor_version_upgrade = "true"
}

# Named "default", as Ray then authenticates with a password alone.
resource "aws_elasticache_user" "ray" {
  user_id       = "${var.name}-ray"
  user_name     = "default"
  engine        = "redis"
  access_string = "off ~* -@all"
  tags          = local.tags

  authentication_mode {
    type = "no-password-required"
  }

  # The operator's: the user is switched on together with its password.
  lifecycle {
    ignore_changes = [access_string, authentication_mode]
  }
}

resource "aws_elasticache_user_group" "ray" {
  user_group_id = "${var.name}-ray"
  engine        = "redis"
  user_ids      = [aws_elasticache_user.ray.user_id]
  tags          = local.tags
}

resource "aws_elasticache_subnet_group" "ray" {
  name       = "${var.name}-ray"
  subnet_ids = [for subnet in aws_subnet.data : subnet.id]
  tags       = local.tags
}

resource "aws_security_group" "ray" {
  name        = "${var.name}-ray"
  description = "Redis, for Ray's head"
  vpc_id      = aws_vpc.this.id
  tags        = merge(local.tags, { Name = "${var.name}-ray" })
}

resource "aws_vpc_security_group_ingress_rule" "ray" {
  security_group_id            = aws_security_group.ray.id
  description                  = "Redis from head nodes"
  referenced_security_group_id = aws_security_group.tier["head"].id
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
  tags                         = local.tags
}
