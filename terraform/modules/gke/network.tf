# One private network: no node, database or load balancer in it has a public address. What runs in it
# reaches out through NAT; nothing outside reaches in.

locals {
  # Half for nodes, an eighth each for load balancer proxies, Google's own services and their endpoints.
  ranges = zipmap(["nodes", "proxies", "managed", "endpoints"], cidrsubnets(var.network.cidr, 1, 3, 3, 3))

  gateway_port = 8000

  # From where Google's load balancers ask for health (https://cloud.google.com/load-balancing/docs/health-check-concepts)
  # and pass requests on: straight to pods, so the workload's network policy has to know them too.
  health_checkers = ["35.191.0.0/16", "130.211.0.0/22"]
  balancers       = concat([local.ranges.proxies], local.health_checkers)

  # The address is internal; the certificate is the workload's (a TLS secret named in its Ingress).
  ingress_class = "gce-internal"
  ingress = {
    class        = local.ingress_class
    source_cidrs = local.balancers
    annotations = {
      "kubernetes.io/ingress.class"                   = local.ingress_class # GKE reads it here, not in the spec
      "kubernetes.io/ingress.allow-http"              = "false"
      "kubernetes.io/ingress.regional-static-ip-name" = google_compute_address.gateway.name
    }
  }
}

resource "google_compute_network" "this" {
  name                            = var.name
  auto_create_subnetworks         = false
  routing_mode                    = "REGIONAL"
  delete_default_routes_on_create = false # NAT needs the default route

  depends_on = [google_project_service.needed]
}

resource "google_compute_subnetwork" "nodes" {
  name                     = "${var.name}-nodes"
  region                   = var.location
  network                  = google_compute_network.this.id
  ip_cidr_range            = local.ranges.nodes
  private_ip_google_access = true # weights and images come over Google's network, not through NAT

  secondary_ip_range {
    range_name    = "pods"
    ip_cidr_range = var.network.pods_cidr
  }
  secondary_ip_range {
    range_name    = "services"
    ip_cidr_range = var.network.services_cidr
  }

  log_config {
    aggregation_interval = "INTERVAL_10_MIN"
    flow_sampling        = 0.1
    metadata             = "INCLUDE_ALL_METADATA"
  }
}

resource "google_compute_subnetwork" "proxies" {
  name          = "${var.name}-proxies"
  region        = var.location
  network       = google_compute_network.this.id
  ip_cidr_range = local.ranges.proxies
  purpose       = "REGIONAL_MANAGED_PROXY"
  role          = "ACTIVE"
}

resource "google_compute_subnetwork" "endpoints" {
  name                     = "${var.name}-endpoints"
  region                   = var.location
  network                  = google_compute_network.this.id
  ip_cidr_range            = local.ranges.endpoints
  private_ip_google_access = true
}

resource "google_compute_address" "gateway" {
  name         = "${var.name}-gateway"
  region       = var.location
  address_type = "INTERNAL"
  purpose      = "SHARED_LOADBALANCER_VIP"
  subnetwork   = google_compute_subnetwork.nodes.id
  labels       = var.labels
}

# Where Cloud SQL lives, peered with the network.
resource "google_compute_global_address" "managed" {
  name          = "${var.name}-managed"
  network       = google_compute_network.this.id
  address_type  = "INTERNAL"
  purpose       = "VPC_PEERING"
  address       = cidrhost(local.ranges.managed, 0)
  prefix_length = tonumber(split("/", local.ranges.managed)[1])
}

resource "google_service_networking_connection" "managed" {
  network                 = google_compute_network.this.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.managed.name]
}

resource "google_compute_router" "this" {
  name    = var.name
  region  = var.location
  network = google_compute_network.this.id
}

resource "google_compute_router_nat" "this" {
  name                               = var.name
  region                             = var.location
  router                             = google_compute_router.this.name
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "LIST_OF_SUBNETWORKS"

  subnetwork {
    name                    = google_compute_subnetwork.nodes.id
    source_ip_ranges_to_nat = ["ALL_IP_RANGES"]
  }

  log_config {
    enable = true
    filter = "ERRORS_ONLY"
  }
}

# Refused by default and written down. GKE adds its own rules for control plane, nodes and pods, all
# from ranges of this network. No rule names 8265: the dashboard is reached by port-forward, through
# the control plane and its access control.
resource "google_compute_firewall" "refuse" {
  name          = "${var.name}-refuse"
  network       = google_compute_network.this.id
  direction     = "INGRESS"
  priority      = 65534
  source_ranges = ["0.0.0.0/0"]

  deny {
    protocol = "all"
  }

  log_config {
    metadata = "INCLUDE_ALL_METADATA"
  }
}

resource "google_compute_firewall" "gateway" {
  name          = "${var.name}-gateway"
  network       = google_compute_network.this.id
  direction     = "INGRESS"
  priority      = 1000
  source_ranges = local.balancers
  target_tags   = [local.node_tag]

  allow {
    protocol = "tcp"
    ports    = [tostring(local.gateway_port)]
  }
}
