#!/usr/bin/env bash
# join_disks.sh PATH USER: the node's own NVMe disks as one file system at PATH, with a folder for
# weights in it. Run again it finds its work done; what it did not make it does not touch.
#
# Runs in a privileged container that sees the node's /dev and, both ways, the mounts below /mnt.
set -euo pipefail

path=$1 user=$2
label=pixtral-nvme
array=/dev/md0
# Azure's word for a disk that is part of the machine. Managed disks may be NVMe too and are others.
model='Microsoft NVMe Direct Disk'

local_disks() {
  lsblk --nodeps --noheadings --paths --output NAME,MODEL | grep -F "$model" | cut -d ' ' -f 1
}

joined() {
  blkid --label "$label" || true
}

if ! mountpoint --quiet "$path"; then
  device=$(joined)
  if [ -z "$device" ]; then
    # After a restart of the node the array is there, and may not have been put together yet.
    mdadm --assemble --scan || true
    device=$(joined)
  fi
  if [ -z "$device" ]; then
    mapfile -t disks < <(local_disks || true)
    if [ ${#disks[@]} -eq 0 ]; then
      echo "no disk of this node is a \"$model\"" >&2
      exit 1
    fi
    for disk in "${disks[@]}"; do
      if [ -n "$(wipefs --no-act --noheadings "$disk")" ]; then
        echo "$disk is somebody else's: it holds something" >&2
        exit 1
      fi
    done
    device=${disks[0]}
    if [ ${#disks[@]} -gt 1 ]; then
      mdadm --create "$array" --run --level 0 --raid-devices ${#disks[@]} "${disks[@]}"
      device=$array
    fi
    mkfs.ext4 -q -m 0 -L "$label" "$device"
  fi
  mkdir -p "$path"
  mount -o noatime "$device" "$path"
fi

# Pods wait for this folder (hostPath of type Directory), so none writes below an empty mount point.
install -d -o "$user" -g "$user" "$path/weights"
echo "$path is ready"
