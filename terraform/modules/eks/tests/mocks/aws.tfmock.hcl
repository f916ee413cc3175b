# What AWS would answer, where the module reads into it.

mock_data "aws_caller_identity" {
  defaults = { account_id = "123456789012" }
}

mock_resource "aws_eks_cluster" {
  defaults = {
    vpc_config = { cluster_security_group_id = "sg-cluster", vpc_id = "vpc-1" }
  }
}

mock_resource "aws_kms_key" {
  defaults = { arn = "arn:aws:kms:us-east-1:123456789012:key/1" }
}

mock_resource "aws_vpc" {
  defaults = { arn = "arn:aws:ec2:us-east-1:123456789012:vpc/vpc-1" }
}

mock_resource "aws_db_instance" {
  defaults = {
    address            = "ledger.example.us-east-1.rds.amazonaws.com"
    master_user_secret = [{ kms_key_id = "key", secret_arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:rds!db-1", secret_status = "active" }]
  }
}

mock_resource "aws_elasticache_replication_group" {
  defaults = { primary_endpoint_address = "ray.example.use1.cache.amazonaws.com" }
}
