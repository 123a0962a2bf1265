#!/bin/sh
# Lays what outlives updates over the read-only root: /var and /home from the state partition, and the machine's own
# changes to /etc, /opt, /root and /srv.

. /lib/evenkeel-lib.sh

# The first boot starts with what the image has; a copy that was cut off is begun again.
evenkeel_bind() {
    [ -d "$NEWROOT/$1" ] || return 0
    if [ ! -d "$_state/$1" ]; then
        rm -rf "$_state/$1.new"
        cp -a "$NEWROOT/$1" "$_state/$1.new" && sync && mv "$_state/$1.new" "$_state/$1" && sync || return 1
    fi
    mount --bind "$_state/$1" "$NEWROOT/$1"
}

evenkeel_overlay() {
    [ -d "$NEWROOT/$1" ] || return 0
    mkdir -p "$_state/overlay/$1/upper" "$_state/overlay/$1/work" || return 1
    mount -t overlay \
        -o "lowerdir=$NEWROOT/$1,upperdir=$_state/overlay/$1/upper,workdir=$_state/overlay/$1/work" \
        "evenkeel-$1" "$NEWROOT/$1"
}

if getarg evenkeel.slot= > /dev/null; then
    _state=/run/evenkeel/state
    mkdir -p "$_state"
    if [ "$(getarg evenkeel.slot=)" = recovery ]; then
        # It works without the state, and on it.
        _device="no disk"
        mount -t tmpfs -o mode=0755 evenkeel-state "$_state" || evenkeel_fail "cannot mount a tmpfs for the state"
    else
        evenkeel_reset || evenkeel_fail "cannot let this machine begin anew"
        _device=$(evenkeel_partition evenkeel-state) || evenkeel_fail "the slot's disk has no partition evenkeel-state"
        evenkeel_mount_state "$_device" "$_state" || evenkeel_fail "cannot mount $_device, the state partition"
    fi
    for _folder in var home; do
        evenkeel_bind "$_folder" || evenkeel_fail "cannot bind /$_folder from the state partition"
    done
    for _folder in etc opt root srv; do
        evenkeel_overlay "$_folder" || evenkeel_fail "cannot lay the machine's own changes over /$_folder"
    done
    info "evenkeel: slot $(getarg evenkeel.slot=), state on $_device"
fi
