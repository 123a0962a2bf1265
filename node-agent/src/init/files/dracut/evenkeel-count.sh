#!/bin/sh
# Before anything asks whether this boot is counted, it is.

. /lib/evenkeel-lib.sh

if [ ! -e /run/evenkeel-asked ] && [ -b "$(evenkeel_slot_device)" ]; then
    : > /run/evenkeel-asked
    evenkeel_count
fi
