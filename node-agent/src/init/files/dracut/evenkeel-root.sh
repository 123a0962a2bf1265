#!/bin/sh
# Maps the slot's file system through dm-verity (version 1, SHA-256, blocks of 4096 bytes, no salt, no superblock): the
# hash tree lies behind the file system, the root hash and the number of blocks come from the boot entry. What does not
# hash up to it is never read: on trial it restarts the machine, which uses up a try; in a kept slot it is a read error.

. /lib/evenkeel-lib.sh

if _hash=$(getarg evenkeel.roothash=) && [ ! -e "/dev/mapper/$evenkeel_root" ] && [ -b "$(evenkeel_slot_device)" ]; then
    _device=$(evenkeel_slot_device)
    _blocks=$(getarg evenkeel.blocks=)
    _on_corruption=
    evenkeel_counted && _on_corruption="1 restart_on_corruption"
    _table="0 $((_blocks * 8)) verity 1 $_device $_device 4096 4096 $_blocks $_blocks sha256 $_hash - $_on_corruption"
    dmsetup create "$evenkeel_root" --readonly --table "$_table" ||
        evenkeel_fail "cannot map $_device through dm-verity: $_table"
    dd if="/dev/mapper/$evenkeel_root" of=/dev/null bs=4096 count=1 2> /dev/null ||
        evenkeel_fail "slot $(getarg evenkeel.slot=) on $_device does not hold what its root hash says"
fi
