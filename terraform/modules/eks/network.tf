# One network for one system. Nodes, pods, load balancers, data and the control plane's interfaces have
# subnets of their own; only NAT gateways have public addresses, and nothing can be reached through them.

locals {
  tags     = merge(var.labels, { "pixtral-cluster" = var.name })
  gpu_zone = var.zones[0]

  # The range in eighths: four for nodes, one zone each; the rest in small pieces for everything else.
  subnets = {
    for index, zone in var.zones : zone => {
      nodes     = cidrsubnet(var.network.cidr, 3, index)
      public    = cidrsubnet(var.network.cidr, 6, 32 + index)
      data      = cidrsubnet(var.network.cidr, 6, 40 + index)
      control   = cidrsubnet(var.network.cidr, 6, 48 + index)
      balancers = cidrsubnet(var.network.cidr, 6, 56 + index)
      pods      = cidrsubnet(var.network.pods_cidr, 2, index)
    }
  }
}

resource "aws_vpc" "this" {
  cidr_block           = var.network.cidr
  enable_dns_hostnames = true
  enable_dns_support   = true
  tags                 = merge(local.tags, { Name = var.name })
}

# Whatever is given no security group of its own gets this one, which lets nothing in or out.
resource "aws_default_security_group" "closed" {
  vpc_id = aws_vpc.this.id
  tags   = merge(local.tags, { Name = "${var.name}-closed" })
}

resource "aws_vpc_ipv4_cidr_block_association" "pods" {
  vpc_id     = aws_vpc.this.id
  cidr_block = var.network.pods_cidr
}

resource "aws_subnet" "nodes" {
  for_each = local.subnets

  vpc_id                  = aws_vpc.this.id
  availability_zone       = each.key
  cidr_block              = each.value.nodes
  map_public_ip_on_launch = false
  tags                    = merge(local.tags, { Name = "${var.name}-nodes-${each.key}" })
}

resource "aws_subnet" "pods" {
  for_each = local.subnets

  vpc_id                  = aws_vpc_ipv4_cidr_block_association.pods.vpc_id
  availability_zone       = each.key
  cidr_block              = each.value.pods
  map_public_ip_on_launch = false
  # The VPC CNI takes addresses from subnets with this tag, so that pods do not use up the nodes'.
  tags = merge(local.tags, { Name = "${var.name}-pods-${each.key}", "kubernetes.io/role/cni" = "1" })
}

resource "aws_subnet" "control" {
  for_each = local.subnets

  vpc_id                  = aws_vpc.this.id
  availability_zone       = each.key
  cidr_block              = each.value.control
  map_public_ip_on_launch = false
  tags                    = merge(local.tags, { Name = "${var.name}-control-${each.key}" })
}

# Where the load balancer controller may put load balancers: internal ones, and here only. Apart from
# the nodes, so that a network policy can tell the load balancer from a pod.
resource "aws_subnet" "balancers" {
  for_each = local.subnets

  vpc_id                  = aws_vpc.this.id
  availability_zone       = each.key
  cidr_block              = each.value.balancers
  map_public_ip_on_launch = false
  tags                    = merge(local.tags, { Name = "${var.name}-balancers-${each.key}", "kubernetes.io/role/internal-elb" = "1" })
}

# The main route table, which knows the network itself and nothing else: no way to the internet.
resource "aws_subnet" "data" {
  for_each = local.subnets

  vpc_id                  = aws_vpc.this.id
  availability_zone       = each.key
  cidr_block              = each.value.data
  map_public_ip_on_launch = false
  tags                    = merge(local.tags, { Name = "${var.name}-data-${each.key}" })
}

# Holds the zone's NAT gateway. Without the tag kubernetes.io/role/elb no load balancer comes here.
resource "aws_subnet" "public" {
  for_each = local.subnets

  vpc_id                  = aws_vpc.this.id
  availability_zone       = each.key
  cidr_block              = each.value.public
  map_public_ip_on_launch = false
  tags                    = merge(local.tags, { Name = "${var.name}-public-${each.key}" })
}

resource "aws_internet_gateway" "egress" {
  vpc_id = aws_vpc.this.id
  tags   = merge(local.tags, { Name = var.name })
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.this.id
  tags   = merge(local.tags, { Name = "${var.name}-public" })
}

resource "aws_route" "internet" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.egress.id
}

resource "aws_route_table_association" "public" {
  for_each = aws_subnet.public

  subnet_id      = each.value.id
  route_table_id = aws_route_table.public.id
}

# The one kind of public address here: what the outside sees as the sender.
resource "aws_eip" "nat" {
  for_each = local.subnets

  domain = "vpc"
  tags   = merge(local.tags, { Name = "${var.name}-nat-${each.key}" })
}

resource "aws_nat_gateway" "this" {
  for_each = local.subnets

  allocation_id = aws_eip.nat[each.key].id
  subnet_id     = aws_subnet.public[each.key].id
  tags          = merge(local.tags, { Name = "${var.name}-${each.key}" })

  depends_on = [aws_internet_gateway.egress]
}

resource "aws_route_table" "private" {
  for_each = local.subnets

  vpc_id = aws_vpc.this.id
  tags   = merge(local.tags, { Name = "${var.name}-private-${each.key}" })
}

resource "aws_route" "egress" {
  for_each = local.subnets

  route_table_id         = aws_route_table.private[each.key].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[each.key].id
}

resource "aws_route_table_association" "nodes" {
  for_each = aws_subnet.nodes

  subnet_id      = each.value.id
  route_table_id = aws_route_table.private[each.key].id
}

resource "aws_route_table_association" "pods" {
  for_each = aws_subnet.pods

  subnet_id      = each.value.id
  route_table_id = aws_route_table.private[each.key].id
}

# Closed doors that somebody tried: what to read first when two things cannot reach each other.
resource "aws_flow_log" "rejected" {
  vpc_id          = aws_vpc.this.id
  traffic_type    = "REJECT"
  log_destination = aws_cloudwatch_log_group.flow.arn
  iam_role_arn    = aws_iam_role.flow.arn
  tags            = local.tags
}

resource "aws_cloudwatch_log_group" "flow" {
  name              = "/pixtral/${var.name}/rejected"
  retention_in_days = 30
  tags              = local.tags
}

resource "aws_iam_role" "flow" {
  name = "${var.name}-flow"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "vpc-flow-logs.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
  tags = local.tags
}

resource "aws_iam_role_policy" "flow" {
  name = "write"
  role = aws_iam_role.flow.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"]
      Resource = "${aws_cloudwatch_log_group.flow.arn}:*"
    }]
  })
}
