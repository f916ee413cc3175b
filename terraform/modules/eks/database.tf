# PostgreSQL for the ledger. Only gateway nodes reach it, only by TLS. RDS makes the password and
# keeps it in Secrets Manager: it passes through no plan and no state.

locals {
  postgres = "17"
}

resource "aws_db_instance" "ledger" {
  identifier     = "${var.name}-ledger"
  engine         = "postgres"
  engine_version = local.postgres
  instance_class = var.database.size
  multi_az       = var.database.high_availability
  tags           = local.tags

  allocated_storage     = var.database.storage_gb
  max_allocated_storage = var.database.storage_gb * 2
  storage_type          = "gp3"
  storage_encrypted     = true
  kms_key_id            = aws_kms_key.this["data"].arn

  db_name                       = "pixtral"
  username                      = "pixtral"
  manage_master_user_password   = true
  master_user_secret_kms_key_id = aws_kms_key.this["data"].arn

  db_subnet_group_name   = aws_db_subnet_group.ledger.name
  vpc_security_group_ids = [aws_security_group.ledger.id]
  parameter_group_name   = aws_db_parameter_group.ledger.name
  publicly_accessible    = false

  deletion_protection             = var.deletion_protection
  skip_final_snapshot             = !var.deletion_protection
  final_snapshot_identifier       = "${var.name}-ledger-final"
  delete_automated_backups        = !var.deletion_protection
  copy_tags_to_snapshot           = true
  backup_retention_period         = 14
  auto_minor_version_upgrade      = true
  allow_major_version_upgrade     = false
  enabled_cloudwatch_logs_exports = ["postgresql", "upgrade"]
}

resource "aws_db_parameter_group" "ledger" {
  name   = "${var.name}-ledger"
  family = "postgres${local.postgres}"
  tags   = local.tags

  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }
}

resource "aws_db_subnet_group" "ledger" {
  name       = "${var.name}-ledger"
  subnet_ids = [for subnet in aws_subnet.data : subnet.id]
  tags       = local.tags
}

# RDS would change the password every week. Gateways read it when they start, so a change is an
# occasion to restart them and has to come seldom.
resource "aws_secretsmanager_secret_rotation" "ledger" {
  secret_id          = aws_db_instance.ledger.master_user_secret[0].secret_arn
  rotate_immediately = false

  rotation_rules {
    schedule_expression = "rate(365 days)"
  }
}

resource "aws_security_group" "ledger" {
  name        = "${var.name}-ledger"
  description = "PostgreSQL, for gateways"
  vpc_id      = aws_vpc.this.id
  tags        = merge(local.tags, { Name = "${var.name}-ledger" })
}

resource "aws_vpc_security_group_ingress_rule" "ledger" {
  security_group_id            = aws_security_group.ledger.id
  description                  = "PostgreSQL from gateway nodes"
  referenced_security_group_id = aws_security_group.tier["gateway"].id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
  tags                         = local.tags
}
