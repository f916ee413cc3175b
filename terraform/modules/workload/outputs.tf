output "dashboard" {
  description = "How to see Ray's dashboard: nothing else leads there. It asks for the token in pixtral-ray-token."
  value       = "kubectl --namespace ${local.platform.namespace} port-forward service/pixtral-head-svc 8265:8265"
}

output "gpus" {
  description = "The most that the decoder's and the vision tier's pods may hold at once."
  value       = local.gpus_wanted
}
