#!/bin/sh
# What the hooks of this module share.

command -v getarg > /dev/null || . /lib/dracut-lib.sh

# The mapping that the kernel command line names as root.
evenkeel_root=evenkeel-root

# The partition of the slot that boots.
evenkeel_slot_device() {
    echo "/dev/disk/by-partuuid/$(getarg evenkeel.partuuid=)"
}

# The partition of a name, on the slot's disk only.
evenkeel_partition() {
    _slot=$(readlink -f "$(evenkeel_slot_device)") || return 1
    _disk=$(readlink -f "/sys/class/block/${_slot##*/}/..") || return 1
    for _uevent in "$_disk"/*/uevent; do
        _name= _node=
        while IFS='=' read -r _key _value; do
            case $_key in
                PARTNAME) _name=$_value ;;
                DEVNAME) _node=$_value ;;
            esac
        done < "$_uevent"
        if [ "$_name" = "$1" ]; then
            echo "/dev/$_node"
            return 0
        fi
    done
    return 1
}

# Whether the boot loader left a variable of this name in the firmware.
evenkeel_told() {
    _variables=/sys/firmware/efi/efivars
    _variable=$_variables/$1-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f
    [ -d /sys/firmware/efi ] || return 1
    grep -q " $_variables efivarfs " /proc/mounts && { [ -e "$_variable" ]; return; }
    mount -t efivarfs -o ro efivarfs "$_variables" || return 1
    [ -e "$_variable" ]
    _found=$?
    umount "$_variables"
    return $_found
}

# Whether this boot is counted, as it is on trial: GRUB's entry says so on the command line, systemd-boot in a variable,
# and we where neither could.
evenkeel_counted() {
    [ -e /run/evenkeel-counted ] || getarg evenkeel.trial > /dev/null || evenkeel_told LoaderBootCountPath
}

# systemd-boot boots a trial also when it cannot count it, because it cannot write, and would do so for ever: it is
# counted here, and the agent hears of it (node-agent/src/boot/systemd.rs). GRUB boots the kept slot then.
evenkeel_count() {
    evenkeel_told LoaderInfo && ! evenkeel_counted || return 0
    _slot=$(getarg evenkeel.slot=) || return 0
    _esp=/run/evenkeel/esp
    mkdir -p "$_esp"
    mount -t vfat "$(evenkeel_partition evenkeel-esp)" "$_esp" || return 0
    for _entry in "$_esp/loader/entries/evenkeel-$_slot+"*.conf; do
        _tries=${_entry##*+}
        _tries=${_tries%.conf}
        _done=0
        case $_tries in *-*) _done=${_tries#*-} ;; esac
        case ${_tries%%-*} in 0 | "*") continue ;; esac
        mv "$_entry" "${_entry%+*}+$((${_tries%%-*} - 1))-$((_done + 1)).conf" || continue
        : > /run/evenkeel-counted
        echo "$_slot" > "$_esp/evenkeel/uncounted"
        evenkeel_say "the boot loader could not count this boot of slot $_slot; it is counted now"
    done
    umount "$_esp"
}

# Whether the slot was mapped, so that its bytes were looked at.
evenkeel_mapped() {
    [ -e "/dev/mapper/$evenkeel_root" ]
}

# Whether the mapping met bytes that are not what was written, or the disk cannot read all of them: of that the mapping
# tells nothing.
evenkeel_damaged() {
    read -r _ _ _ _found _ << STATUS
$(dmsetup status "$evenkeel_root")
STATUS
    [ "$_found" = C ] || ! evenkeel_readable
}

# Whether the disk reads all of the slot. The hash tree takes a 127th of the blocks of 4096 bytes, and a mebibyte has 256.
evenkeel_readable() {
    dd if="$(evenkeel_slot_device)" of=/dev/null bs=1048576 count=$(($(getarg evenkeel.blocks=) / 253 + 1)) 2> /dev/null
}

# A kept slot whose bytes are not what was written, or cannot be read, is given up, as the boot loader gives up a trial without tries left,
# if there is another slot to boot: it would fail in every boot to come. The machine's other troubles are not the slot's.
evenkeel_give_up() {
    evenkeel_mapped && ! evenkeel_counted || return 0
    _slot=$(getarg evenkeel.slot=) || return 0
    evenkeel_damaged || return 0
    _esp=/run/evenkeel/esp
    mkdir -p "$_esp"
    mount -t vfat "$(evenkeel_partition evenkeel-esp)" "$_esp" || return 0
    if [ -f "$_esp/evenkeel/grub/grubenv" ]; then
        evenkeel_give_up_script "$_esp/evenkeel/grub" "$_slot"
    else
        evenkeel_give_up_entry "$_esp/loader/entries" "$_slot"
    fi && evenkeel_say "slot $_slot is damaged and is given up; the next boot takes another slot"
    umount "$_esp"
}

# systemd-boot: the folder of entries, and the slot. An entry without tries left is no other slot.
evenkeel_give_up_entry() {
    for _entry in "$1"/evenkeel-*.conf; do
        case ${_entry##*/} in
            "evenkeel-$2.conf" | *+0.conf | *+0-*.conf | "evenkeel-*.conf") ;;
            *)
                mv "$1/evenkeel-$2.conf" "$1/evenkeel-$2+0.conf"
                return
                ;;
        esac
    done
    return 1
}

# GRUB: the folder of scripts, and the slot. It does not see a script under another name, and takes another slot's; that
# of a trial without tries left is no other slot.
evenkeel_give_up_script() {
    _trial= _tries=
    while IFS='=' read -r _key _value; do
        case $_key in
            evenkeel_trial) _trial=$_value ;;
            evenkeel_tries) _tries=$_value ;;
        esac
    done < "$1/grubenv"
    for _script in "$1"/*.cfg; do
        _other=${_script##*/}
        case ${_other%.cfg} in
            "$2" | "*") continue ;;
            "$_trial") case $_tries in [1-3]) ;; *) continue ;; esac ;;
        esac
        mv "$1/$2.cfg" "$1/$2.given-up"
        return
    done
    return 1
}

# A machine that begins anew in this boot: what was asked for on the boot partition (core/src/reset.rs) is done, and
# done again if it was cut off, before anything is mounted that it would lose. Another slot's or image's boot leaves it
# alone.
evenkeel_reset() {
    _esp=/run/evenkeel/esp
    mkdir -p "$_esp"
    mount -t vfat "$(evenkeel_partition evenkeel-esp)" "$_esp" || return 0
    _request=$_esp/evenkeel/reset
    # The caller has a `_state` of its own: these variables are everybody's.
    _for_slot= _for_digest= _do_state= _do_oem=
    if [ -f "$_request" ]; then
        while IFS='=' read -r _key _value; do
            case $_key in
                slot) _for_slot=$_value ;;
                digest) _for_digest=$_value ;;
                state) _do_state=$_value ;;
                oem) _do_oem=$_value ;;
            esac
        done < "$_request"
    fi
    if [ -n "$_do_oem" ] && [ "$_for_slot" = "$(getarg evenkeel.slot=)" ] &&
        [ "$_for_digest" = "$(getarg evenkeel.digest=)" ]; then
        [ "$_do_state" != wipe ] || evenkeel_anew state || return 1
        [ "$_do_oem" != wipe ] || evenkeel_anew oem || return 1
        mv -f "$_request" "$_request-done" && sync || return 1
        evenkeel_say "this machine begins anew: state $_do_state, oem $_do_oem"
    fi
    umount "$_esp"
}

# Mounts the state partition. One that is damaged is mended as far as e2fsck can; none is made anew, for what is on it is
# lost then. Not on trial: the new image may be what cannot mount it.
evenkeel_mount_state() {
    mount -t ext4 -o noatime "$1" "$2" && return 0
    evenkeel_counted && return 1
    e2fsck -y "$1"
    mount -t ext4 -o noatime "$1" "$2" || return 1
    evenkeel_say "the state partition was damaged, and e2fsck mended it: files may be missing"
}

# An empty file system for the partition of a name.
evenkeel_anew() {
    mke2fs -q -F -t ext4 -m 1 -b 4096 -L "ek-$1" "$(evenkeel_partition "evenkeel-$1")" && sync
}

evenkeel_say() {
    echo "<24>evenkeel: $*" > /dev/kmsg
}

# Ends this boot so that the boot loader can go on: dracut's own way would halt the machine.
evenkeel_fail() {
    evenkeel_say "$*"
    evenkeel_give_up
    sync
    systemctl --force reboot 2> /dev/null || reboot -f
    # Nothing else may go on with this boot; a reboot that hangs is none.
    sleep 30
    echo b > /proc/sysrq-trigger
    sleep 30
}
