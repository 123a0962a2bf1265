#!/bin/sh
# A kept slot that mounts and whose first process is damaged would fail behind the initrd, in every boot to come: it is
# tried here, where the slot can be given up. A trial uses up its tries.

. /lib/evenkeel-lib.sh

_init=/usr/lib/systemd/systemd
if evenkeel_mapped && ! evenkeel_counted && [ -e "$NEWROOT$_init" ] &&
    ! chroot "$NEWROOT" "$_init" --version > /dev/null 2>&1 && evenkeel_damaged; then
    evenkeel_fail "$_init of slot $(getarg evenkeel.slot=) is damaged and does not start"
fi
