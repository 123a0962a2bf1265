#!/bin/sh
# Lays what outlives updates over the read-only root: /var and /home from the state partition, and the machine's own
# changes to /etc, /opt, /root and /srv. The state partition is looked for on the root's disk only.

command -v getarg > /dev/null || . /lib/dracut-lib.sh

evenkeel_state_device() {
    _root=
    while read -r _ _ _numbers _ _target _; do
        [ "$_target" = "$NEWROOT" ] && _root=$_numbers
    done < /proc/self/mountinfo
    [ -n "$_root" ] || return 1
    _disk=$(readlink -f "/sys/dev/block/$_root/..") || return 1
    for _uevent in "$_disk"/*/uevent; do
        _name= _node=
        while IFS='=' read -r _key _value; do
            case $_key in
                PARTNAME) _name=$_value ;;
                DEVNAME) _node=$_value ;;
            esac
        done < "$_uevent"
        if [ "$_name" = evenkeel-state ]; then
            echo "/dev/$_node"
            return 0
        fi
    done
    return 1
}

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
    _device=$(evenkeel_state_device) || die "evenkeel: the root's disk has no partition evenkeel-state"
    mkdir -p "$_state"
    mount -t ext4 -o noatime "$_device" "$_state" || die "evenkeel: cannot mount $_device, the state partition"
    for _folder in var home; do
        evenkeel_bind "$_folder" || die "evenkeel: cannot bind /$_folder from the state partition"
    done
    for _folder in etc opt root srv; do
        evenkeel_overlay "$_folder" || die "evenkeel: cannot lay the machine's own changes over /$_folder"
    done
    info "evenkeel: slot $(getarg evenkeel.slot=), state on $_device"
fi
