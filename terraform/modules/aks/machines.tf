# The machine types that this module knows: shapes as Azure publishes them. cpu and memory_gib are the
# machine's; Kubernetes keeps some of both.
#
# groups: the profiles bf16 on 4 and int4 (or the 12B) on 1 A100 80 GB each fill their GPUs with one
# group; the 8-GPU machine holds two of four. nvlink: every pair of GPUs is joined by NVLink. In
# NC96ads_A100_v4 only two pairs are, so a group of four talks over PCIe: decoding is slower there,
# by how much is not measured. Standard_ND96amsr_A100_v4 is the better choice.
locals {
  machines = {
    "Standard_ND96amsr_A100_v4" = { gpus = 8, groups = 2, nvlink = true, nvme = true, cpu = 96, memory_gib = 1900 }
    "Standard_NC96ads_A100_v4"  = { gpus = 4, groups = 1, nvlink = false, nvme = true, cpu = 96, memory_gib = 880 }
    "Standard_NC24ads_A100_v4"  = { gpus = 1, groups = 1, nvlink = false, nvme = true, cpu = 24, memory_gib = 220 }
    "Standard_NV36ads_A10_v5"   = { gpus = 1, groups = 0, nvlink = false, nvme = false, cpu = 36, memory_gib = 440 }
    "Standard_D4s_v5"           = { gpus = 0, groups = 0, nvlink = false, nvme = false, cpu = 4, memory_gib = 16 }
    "Standard_D8s_v5"           = { gpus = 0, groups = 0, nvlink = false, nvme = false, cpu = 8, memory_gib = 32 }
    "Standard_D16s_v5"          = { gpus = 0, groups = 0, nvlink = false, nvme = false, cpu = 16, memory_gib = 64 }
    "Standard_D32s_v5"          = { gpus = 0, groups = 0, nvlink = false, nvme = false, cpu = 32, memory_gib = 128 }
  }

  # A group never leaves its machine, so NCCL needs no network but for the ranks' first meeting. None
  # of these has been run on such a machine.
  nccl_one_machine = {
    NCCL_IB_DISABLE    = "1"    # not run: InfiniBand joins machines, and a group stays in one
    NCCL_SOCKET_IFNAME = "eth0" # not run: the pod's one interface, for the bootstrap between ranks
    NCCL_NVLS_ENABLE   = "0"    # not run: NVLink SHARP came after the A100
  }
  # not run: with NVLink between every pair, fail rather than crawl over PCIe. Where two pairs have
  # none NCCL must choose for itself.
  nccl_nvlink = { NCCL_P2P_LEVEL = "NVL" }

  decoder_machine = local.machines[var.tiers.decoder.machine_type]
  nccl_env = merge(
    local.decoder_machine.gpus > 1 ? local.nccl_one_machine : {},
    local.decoder_machine.nvlink ? local.nccl_nvlink : {},
  )
}
