# Nothing can be reached from outside, and what holds data is kept.

mock_provider "azurerm" {
  source = "./tests/mocks"
}

run "the_control_plane_is_private" {
  command = plan

  assert {
    condition     = azurerm_kubernetes_cluster.this.private_cluster_enabled && azurerm_kubernetes_cluster.this.private_cluster_public_fqdn_enabled == false && azurerm_kubernetes_cluster.this.run_command_enabled == false
    error_message = "The control plane can be reached or found from outside."
  }
  assert {
    condition     = azurerm_kubernetes_cluster.this.local_account_disabled && azurerm_kubernetes_cluster.this.azure_active_directory_role_based_access_control[0].azure_rbac_enabled
    error_message = "A certificate would let in whoever holds it."
  }
  assert {
    condition     = azurerm_kubernetes_cluster.this.network_profile[0].network_policy == "cilium" && azurerm_kubernetes_cluster.this.network_profile[0].network_data_plane == "cilium"
    error_message = "Network policies would not be enforced."
  }
  assert {
    condition     = azurerm_kubernetes_cluster.this.network_profile[0].outbound_type == "userAssignedNATGateway" && keys(azurerm_subnet_nat_gateway_association.this) == ["gateway", "head", "workers"]
    error_message = "Nodes would leave by a load balancer with a public address."
  }
  assert {
    condition     = azurerm_kubernetes_cluster.this.oidc_issuer_enabled && azurerm_kubernetes_cluster.this.workload_identity_enabled
    error_message = "Pods could not log in without a key."
  }
}

# Applied, as a planned rule hides what Azure fills in.
run "the_rules_let_in_nobody_else" {
  variables {
    database_password = "never-to-be-seen-again-1234" # an apply wants what a plan had
  }

  assert {
    condition     = toset(compact(flatten([for rules in local.rules : [for rule in rules : rule.tag]]))) == toset(["AzureLoadBalancer", "VirtualNetwork"])
    error_message = "A rule lets in more than this network, what is peered with it and Azure's health checks."
  }
  assert {
    condition     = alltrue(flatten([for rules in local.rules : [for rule in rules : (rule.tag == null) != (rule.from == null)]]))
    error_message = "A rule without a source lets in everybody."
  }
  assert {
    condition     = { for name, group in azurerm_network_security_group.this : name => toset([for rule in group.security_rule : rule.name]) } == { for name, rules in local.rules : name => setunion(keys(rules), ["refuse"]) }
    error_message = "A subnet has other rules than those written down."
  }
  assert {
    condition     = alltrue([for group in azurerm_network_security_group.this : one([for rule in group.security_rule : "${rule.access} ${rule.priority} ${rule.source_address_prefix} ${rule.destination_port_range}" if rule.name == "refuse"]) == "Deny 4096 * *"])
    error_message = "A subnet lets in whatever no rule names."
  }
  assert {
    condition     = keys(azurerm_subnet_network_security_group_association.this) == keys(azurerm_subnet.this)
    error_message = "A subnet has no rules."
  }
  assert {
    condition     = one([for rule in azurerm_network_security_group.this["control"].security_rule : rule.source_address_prefixes if rule.name == "authorised"]) == toset(["10.200.0.0/24"])
    error_message = "Not those who were listed may reach the control plane."
  }
  assert {
    condition     = one([for rule in azurerm_network_security_group.this["endpoints"].security_rule : rule.source_address_prefixes if rule.name == "redis"]) == toset(azurerm_subnet.this["head"].address_prefixes)
    error_message = "Who writes into Redis runs code in Ray: only head nodes may."
  }
  assert {
    condition     = one([for rule in azurerm_network_security_group.this["database"].security_rule : rule.source_address_prefixes if rule.name == "gateways"]) == toset(azurerm_subnet.this["gateway"].address_prefixes)
    error_message = "Only gateways may reach the ledger."
  }
  assert {
    condition     = azurerm_subnet.this["endpoints"].private_endpoint_network_policies == "Enabled"
    error_message = "Private endpoints would ignore the rules."
  }
}

run "nobody_authorised_means_inside_only" {
  command = plan

  variables {
    network = merge(var.network, { authorised_cidrs = [] })
  }

  assert {
    condition     = keys(local.rules.control) == ["balancer", "nodes"]
    error_message = "Somebody outside reaches the control plane."
  }
}

run "the_gateway_is_inside" {
  command = plan

  assert {
    condition     = length(azurerm_application_gateway.this.frontend_ip_configuration) == 1 && azurerm_application_gateway.this.frontend_ip_configuration[0].public_ip_address_id == null && azurerm_application_gateway.this.frontend_ip_configuration[0].private_ip_address == "10.20.160.10"
    error_message = "The gateway's address is public."
  }
  assert {
    condition     = azurerm_application_gateway.this.global[0].response_buffering_enabled == false
    error_message = "Tokens would come in heaps."
  }
}

run "the_ledger_is_private_encrypted_and_kept" {
  command = plan

  assert {
    condition     = azurerm_postgresql_flexible_server.ledger.public_network_access_enabled == false && azurerm_postgresql_flexible_server_configuration.ledger["require_secure_transport"].value == "ON"
    error_message = "The ledger has a public address, or talks in clear."
  }
  assert {
    condition     = azurerm_postgresql_flexible_server.ledger.backup_retention_days == 30 && azurerm_postgresql_flexible_server.ledger.high_availability[0].mode == "ZoneRedundant" && azurerm_postgresql_flexible_server.ledger.storage_mb == 32768
    error_message = "The ledger could be lost, or is not of the size asked for."
  }
}

run "redis_is_private_encrypted_and_evicts_nothing" {
  command = plan

  assert {
    condition     = local.redis_template.resources[0].properties.publicNetworkAccess == "Disabled" && local.redis_template.resources[1].properties.clientProtocol == "Encrypted" && local.redis_template.resources[1].properties.accessKeysAuthentication == "Enabled"
    error_message = "Who writes into Redis runs code in Ray: it needs a password and TLS."
  }
  assert {
    condition     = local.redis_template.resources[1].properties.evictionPolicy == "NoEviction" && local.redis_template.resources[0].sku.name == "Balanced_B5" && local.redis_template.resources[0].properties.highAvailability == "Enabled"
    error_message = "5 GB of which nothing may be lost, kept twice."
  }
  assert {
    condition     = azurerm_resource_group_template_deployment.redis.template_content == jsonencode(local.redis_template) && keys(local.redis_template.outputs) == ["host"]
    error_message = "The state would keep more of Redis than its name."
  }
  assert {
    condition     = endswith(azurerm_private_endpoint.redis.private_service_connection[0].private_connection_resource_id, "/${local.redis_template.resources[0].type}/${local.redis_template.resources[0].name}")
    error_message = "The private endpoint leads elsewhere."
  }
}

run "weights_are_private_and_kept" {
  command = plan

  assert {
    condition     = azurerm_storage_account.weights.public_network_access_enabled == false && azurerm_storage_account.weights.allow_nested_items_to_be_public == false && azurerm_storage_container.weights.container_access_type == "private"
    error_message = "The weights could become public."
  }
  assert {
    condition     = azurerm_storage_account.weights.shared_access_key_enabled == false && azurerm_storage_account.weights.min_tls_version == "TLS1_2" && azurerm_storage_account.weights.https_traffic_only_enabled
    error_message = "A key that leaks would open the account, or old TLS would do."
  }
  assert {
    condition     = azurerm_storage_account.weights.blob_properties[0].versioning_enabled && azurerm_storage_account.weights.account_replication_type == "ZRS"
    error_message = "The weights could be overwritten for good."
  }
  assert {
    condition     = keys(azurerm_role_assignment.reader) == ["decoder", "vision"] && alltrue([for grant in azurerm_role_assignment.reader : grant.role_definition_name == "Storage Blob Data Reader"])
    error_message = "Only vision and decoder may read the weights, and nobody may write them."
  }
  assert {
    condition     = azurerm_federated_identity_credential.reader["decoder"].subject == "system:serviceaccount:pixtral:pixtral-decoder"
    error_message = "The grant is not for the decoder's own service account."
  }
}

run "what_holds_data_is_kept" {
  command = plan

  assert {
    condition     = keys(azurerm_management_lock.this) == ["cluster", "database", "weights"] && alltrue([for lock in azurerm_management_lock.this : lock.lock_level == "CanNotDelete"])
    error_message = "deletion_protection does not reach everything."
  }
}

run "somebody_is_told_of_the_bill" {
  command = plan

  assert {
    condition     = azurerm_consumption_budget_subscription.this.amount == 1000 && toset([for notice in azurerm_consumption_budget_subscription.this.notification : "${notice.threshold_type} ${notice.threshold}"]) == toset(["Actual 50", "Actual 100", "Forecasted 100"])
    error_message = "The budget is not the one asked for."
  }
  assert {
    condition     = alltrue([for notice in azurerm_consumption_budget_subscription.this.notification : notice.contact_emails == tolist(["oncall@example.com"])])
    error_message = "The budget tells nobody."
  }
  assert {
    condition     = one(azurerm_consumption_budget_subscription.this.filter[0].dimension).values == tolist(["pixtral-test", "pixtral-test-nodes"])
    error_message = "The nodes' own resource group is not counted: that is where the GPUs are billed."
  }
}
