output "platform" {
  description = "For `pixtral deploy render --platform`: terraform output -json platform > platform.json"
  value       = module.cluster.platform
}

output "cost_inputs" {
  description = "The most that can run, by tier."
  value       = module.cluster.cost_inputs
}
