# How the gateway is reached: an internal application load balancer, made from the workload's Ingress
# by aws-load-balancer-controller. TLS only; the certificate is the one in ACM whose name fits the
# Ingress's host.

locals {
  ingress = {
    class        = "alb"
    source_cidrs = [for zone in var.zones : local.subnets[zone].balancers]
    annotations = {
      "alb.ingress.kubernetes.io/scheme"           = "internal"
      "alb.ingress.kubernetes.io/target-type"      = "ip"
      "alb.ingress.kubernetes.io/listen-ports"     = jsonencode([{ HTTPS = 443 }])
      "alb.ingress.kubernetes.io/ssl-policy"       = "ELBSecurityPolicy-TLS13-1-2-2021-06"
      "alb.ingress.kubernetes.io/healthcheck-path" = "/healthz"
      # Without it, anybody who finds a way into the network.
      "alb.ingress.kubernetes.io/inbound-cidrs" = join(",", concat(
        [var.network.cidr, var.network.pods_cidr], var.network.authorised_cidrs,
      ))
      # A stream may be silent while it waits its turn; a minute, the usual value, would cut it.
      "alb.ingress.kubernetes.io/load-balancer-attributes" = join(",", concat(
        ["idle_timeout.timeout_seconds=600", "routing.http.drop_invalid_header_fields.enabled=true"],
        var.deletion_protection ? ["deletion_protection.enabled=true"] : [],
      ))
      "alb.ingress.kubernetes.io/tags" = join(",", [for key, value in local.tags : "${key}=${value}"])
    }
  }
}
