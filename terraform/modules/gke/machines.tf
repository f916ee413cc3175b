# The machine types that this module knows: what is in one, and how many tensor-parallel groups fit.
# vCPUs, memory and bundled disks: https://cloud.google.com/compute/docs/accelerator-optimized-machines
# and .../general-purpose-machines. cpu and memory_gib are the machine's; Kubernetes keeps some of both.
#
# groups: the profiles bf16 on 4, int8 on 2 and int4 on 1 A100 80 GB each fill a machine with one
# group; only the 8-GPU machine holds two of four.
locals {
  machines = {
    "a2-ultragpu-8g" = { gpus = 8, gpu = "nvidia-a100-80gb", groups = 2, cpu = 96, memory_gib = 1360, local_ssds = 8 }
    "a2-ultragpu-4g" = { gpus = 4, gpu = "nvidia-a100-80gb", groups = 1, cpu = 48, memory_gib = 680, local_ssds = 4 }
    "a2-ultragpu-2g" = { gpus = 2, gpu = "nvidia-a100-80gb", groups = 1, cpu = 24, memory_gib = 340, local_ssds = 2 }
    "a2-ultragpu-1g" = { gpus = 1, gpu = "nvidia-a100-80gb", groups = 1, cpu = 12, memory_gib = 170, local_ssds = 1 }
    "g2-standard-16" = { gpus = 1, gpu = "nvidia-l4", groups = 0, cpu = 16, memory_gib = 64, local_ssds = 0 }
    "g2-standard-8"  = { gpus = 1, gpu = "nvidia-l4", groups = 0, cpu = 8, memory_gib = 32, local_ssds = 0 }
    "g2-standard-4"  = { gpus = 1, gpu = "nvidia-l4", groups = 0, cpu = 4, memory_gib = 16, local_ssds = 0 }
    "n2-standard-32" = { gpus = 0, gpu = null, groups = 0, cpu = 32, memory_gib = 128, local_ssds = 0 }
    "n2-standard-16" = { gpus = 0, gpu = null, groups = 0, cpu = 16, memory_gib = 64, local_ssds = 0 }
    "n2-standard-8"  = { gpus = 0, gpu = null, groups = 0, cpu = 8, memory_gib = 32, local_ssds = 0 }
    "n2-standard-4"  = { gpus = 0, gpu = null, groups = 0, cpu = 4, memory_gib = 16, local_ssds = 0 }
  }

  # A group never leaves its machine, so NCCL talks over NVLink alone and the network card is for
  # images and weights. None of these has been run on such a machine.
  nccl_one_machine = {
    NCCL_P2P_LEVEL     = "NVL"  # not run: every pair of these A100s is joined by NVLink; fail rather than crawl over PCIe
    NCCL_IB_DISABLE    = "1"    # not run: there is no InfiniBand to look for
    NCCL_SOCKET_IFNAME = "eth0" # not run: the pod's one interface, for the bootstrap between ranks
    NCCL_NVLS_ENABLE   = "0"    # not run: NVLink SHARP came after the A100
  }
  nccl_env = local.machines[var.tiers.decoder.machine_type].gpus > 1 ? local.nccl_one_machine : {}
}
