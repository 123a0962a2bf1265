#!/bin/sh
# This boot has failed, and dracut is about to reboot.

. /lib/evenkeel-lib.sh

evenkeel_give_up
