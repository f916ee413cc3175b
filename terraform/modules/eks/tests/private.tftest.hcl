# Nothing can be reached from outside, and what holds data is fenced, encrypted and kept.

mock_provider "aws" {
  source = "./tests/mocks"
}

run "a_protected_cluster" {
  command = plan

  # The control plane.
  assert {
    condition     = !aws_eks_cluster.this.vpc_config[0].endpoint_public_access && aws_eks_cluster.this.vpc_config[0].endpoint_private_access
    error_message = "The control plane has a public address."
  }
  assert {
    condition     = keys(aws_vpc_security_group_ingress_rule.control) == ["10.200.0.0/24"] && alltrue([for rule in aws_vpc_security_group_ingress_rule.control : rule.from_port == 443 && rule.to_port == 443])
    error_message = "Not those who were listed, and they alone, may reach the control plane."
  }
  assert {
    condition     = aws_eks_cluster.this.access_config[0].authentication_mode == "API" && contains(aws_eks_cluster.this.encryption_config[0].resources, "secrets") && contains(aws_eks_cluster.this.enabled_cluster_log_types, "audit")
    error_message = "Access entries, encrypted secrets or the audit log are missing."
  }
  assert {
    condition     = jsondecode(aws_eks_addon.network.configuration_values).enableNetworkPolicy == "true"
    error_message = "Network policies would not be enforced."
  }

  # The network.
  assert {
    condition = !anytrue([
      for subnet in concat(values(aws_subnet.nodes), values(aws_subnet.pods), values(aws_subnet.control), values(aws_subnet.data), values(aws_subnet.balancers), values(aws_subnet.public)) : subnet.map_public_ip_on_launch
    ])
    error_message = "Something that starts in a subnet would get a public address."
  }
  assert {
    condition     = !anytrue([for subnet in aws_subnet.public : contains(keys(subnet.tags), "kubernetes.io/role/elb")])
    error_message = "The load balancer controller would find a place for public load balancers."
  }
  assert {
    condition     = length(setintersection(keys(aws_route_table_association.nodes), keys(local.subnets))) == 2 && length(aws_route_table_association.pods) == 2 && length(aws_route_table_association.public) == 2
    error_message = "Nodes and pods belong behind NAT in every zone."
  }
  assert {
    condition     = length(aws_default_security_group.closed.ingress) == 0 && length(aws_default_security_group.closed.egress) == 0
    error_message = "The default security group lets something through."
  }

  # The ledger.
  assert {
    condition     = !aws_db_instance.ledger.publicly_accessible && aws_db_instance.ledger.storage_encrypted && aws_db_instance.ledger.multi_az
    error_message = "The ledger is public, not encrypted, or not kept twice."
  }
  assert {
    condition     = aws_db_instance.ledger.manage_master_user_password && aws_db_instance.ledger.password == null && aws_db_instance.ledger.password_wo == null
    error_message = "The ledger's password belongs to RDS alone."
  }
  assert {
    condition     = contains([for item in aws_db_parameter_group.ledger.parameter : "${item.name}=${item.value}"], "rds.force_ssl=1")
    error_message = "The ledger would accept connections in clear text."
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.ledger.from_port == 5432 && aws_vpc_security_group_ingress_rule.ledger.to_port == 5432 && aws_vpc_security_group_ingress_rule.ledger.cidr_ipv4 == null
    error_message = "Only a security group may be let in to the ledger, on one port."
  }
  assert {
    condition     = aws_db_instance.ledger.backup_retention_period >= 7 && !aws_db_instance.ledger.skip_final_snapshot
    error_message = "The ledger's backups are too short, or it can go without a last one."
  }

  # Ray's state.
  assert {
    condition     = aws_elasticache_replication_group.ray.transit_encryption_mode == "required" && aws_elasticache_replication_group.ray.transit_encryption_enabled && aws_elasticache_replication_group.ray.at_rest_encryption_enabled == "true"
    error_message = "Ray's state travels or rests in clear text."
  }
  assert {
    condition     = startswith(aws_elasticache_user.ray.access_string, "off ") && aws_elasticache_user.ray.passwords == null && aws_elasticache_replication_group.ray.auth_token == null
    error_message = "Redis must stay shut until an operator sets its password, which Terraform must not know."
  }
  assert {
    condition     = aws_elasticache_replication_group.ray.automatic_failover_enabled && aws_elasticache_replication_group.ray.num_cache_clusters == 2 && aws_elasticache_replication_group.ray.node_type == "cache.t4g.medium"
    error_message = "Redis is not the smallest that holds 3 GB, twice."
  }

  # The weights.
  assert {
    condition     = aws_s3_bucket_public_access_block.weights.block_public_acls && aws_s3_bucket_public_access_block.weights.block_public_policy && aws_s3_bucket_public_access_block.weights.ignore_public_acls && aws_s3_bucket_public_access_block.weights.restrict_public_buckets
    error_message = "The weights could be made public."
  }
  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.weights.rule).apply_server_side_encryption_by_default).sse_algorithm == "aws:kms" && aws_s3_bucket_versioning.weights.versioning_configuration[0].status == "Enabled"
    error_message = "The weights are not under our key, or have no versions."
  }
  assert {
    condition     = [for statement in jsondecode(aws_s3_bucket_policy.weights.policy).Statement : statement.Sid] == ["TlsOnly", "DeletionProtection"] && alltrue([for statement in jsondecode(aws_s3_bucket_policy.weights.policy).Statement : statement.Effect == "Deny"])
    error_message = "The bucket must refuse clear text and deletion, and grant nobody anything."
  }

  # What is protected stays.
  assert {
    condition     = aws_eks_cluster.this.deletion_protection && aws_db_instance.ledger.deletion_protection && !aws_s3_bucket.weights.force_destroy
    error_message = "Something that is protected could be deleted."
  }
  assert {
    condition     = alltrue([for key in aws_kms_key.this : key.enable_key_rotation && key.deletion_window_in_days == 30])
    error_message = "A key is not rotated, or could be gone at once."
  }
  assert {
    condition     = sort([for item in aws_budgets_budget.monthly.notification : "${item.notification_type} ${item.threshold}"]) == tolist(["ACTUAL 100", "ACTUAL 50", "FORECASTED 100"])
    error_message = "Somebody would not be told of a threshold."
  }
}

run "nobody_authorised_means_inside_only" {
  command = plan

  variables {
    network             = merge(var.network, { authorised_cidrs = [] })
    deletion_protection = false
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.control) == 0
    error_message = "Somebody from outside the cluster may reach the control plane."
  }
  assert {
    condition     = [for statement in jsondecode(aws_s3_bucket_policy.weights.policy).Statement : statement.Sid] == ["TlsOnly"] && !aws_eks_cluster.this.deletion_protection
    error_message = "A development environment could not be taken down."
  }
}
