output "dashboard" {
  description = "How to see Ray's dashboard."
  value       = module.workload.dashboard
}

output "gpus" {
  description = "The most that the pods may hold at once."
  value       = module.workload.gpus
}
