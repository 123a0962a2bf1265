#!/bin/bash
# What an initrd needs to run a system from an Evenkeel slot.

check() {
    require_binaries dmsetup e2fsck mke2fs || return 1
    return 0
}

depends() {
    # dm: dmsetup and the rules by which udev knows of its mappings.
    echo base dm
}

installkernel() {
    hostonly='' instmods dm_mod dm_verity sha256_generic sha256_ssse3 sha256_arm64 sha2_ce sha256 efivarfs \
        erofs overlay ext4 vfat nls_cp437 nls_ascii nls_iso8859-1 nls_utf8 \
        =drivers/watchdog i2c_i801 lpc_ich \
        virtio_blk virtio_pci virtio_scsi virtio_net ahci ata_piix sd_mod nvme usb_storage uas mmc_block
}

install() {
    inst_multiple chroot cp dd e2fsck grep mkdir mke2fs modprobe mount mv readlink rm sleep sync umount wdctl
    inst_multiple -o /etc/mke2fs.conf
    inst_simple "$moddir/evenkeel-lib.sh" /lib/evenkeel-lib.sh
    inst_hook initqueue/settled 04 "$moddir/evenkeel-count.sh"
    inst_hook initqueue/settled 05 "$moddir/evenkeel-watchdog.sh"
    inst_hook initqueue/settled 10 "$moddir/evenkeel-root.sh"
    inst_hook pre-pivot 10 "$moddir/evenkeel-state.sh"
    inst_hook pre-pivot 20 "$moddir/evenkeel-start.sh"
    inst_hook shutdown-emergency 10 "$moddir/evenkeel-emergency.sh"
    dracut_need_initqueue
}
