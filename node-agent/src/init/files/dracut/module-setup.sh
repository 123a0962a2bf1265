#!/bin/bash
# What an initrd needs to run a system from an Evenkeel slot.

check() {
    return 0
}

depends() {
    echo base
}

installkernel() {
    hostonly='' instmods erofs overlay ext4 vfat nls_cp437 nls_ascii nls_iso8859-1 nls_utf8 \
        virtio_blk virtio_pci virtio_scsi virtio_net ahci ata_piix sd_mod nvme usb_storage uas mmc_block
}

install() {
    inst_multiple cp mkdir mount mv readlink rm sync
    inst_hook pre-pivot 10 "$moddir/evenkeel-state.sh"
}
