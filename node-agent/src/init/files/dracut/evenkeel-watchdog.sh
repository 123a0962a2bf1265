#!/bin/sh
# On trial, starts the machine's watchdog, or the kernel's own where the machine has none: an initrd or a system that hangs
# before systemd feeds it restarts the machine, which uses up a try. It is never stopped here: systemd takes it over
# (RuntimeWatchdogSec).

. /lib/evenkeel-lib.sh

# Enough for a disk that comes late and a first copy of /var, and more than the initrd itself waits for a root.
_seconds=300

if [ ! -e /run/evenkeel-watchdog ] && getarg evenkeel.slot= > /dev/null && evenkeel_counted; then
    : > /run/evenkeel-watchdog
    [ -c /dev/watchdog0 ] || modprobe softdog
    if [ -c /dev/watchdog0 ] && wdctl --settimeout "$_seconds" /dev/watchdog0 > /dev/null && echo > /dev/watchdog0; then
        info "evenkeel: the watchdog restarts this machine if the trial hangs"
    else
        warn "evenkeel: this machine has no watchdog, so that a trial that hangs waits for a person"
    fi
fi
