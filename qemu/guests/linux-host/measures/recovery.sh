#: proves that a host's reads go on by themselves after the card has panicked, and how long that takes
#: limit_s 900
. /test/lib.sh
# Hundredths of a second since the start of this machine.
now() {
    read -r up idle < /proc/uptime
    echo "${up%.*}${up#*.}"
}

# Reads one block after the other, each directly, until one has taken so long that the card was away. A read fails
# only where the host gives up on the card.
read_over_the_gap() {
    device=$(namespaces | head -n 1)
    deadline=$(($(now) + 100 * (AFTER + 300)))
    echo "@@ MARK at-work" > /dev/console
    while :; do
        start=$(now)
        [ "$start" -lt "$deadline" ] || return 1
        dd if="$device" of=/dev/null bs=4k count=1 iflag=direct 2> /tmp/dd.log || { cat /tmp/dd.log; return 1; }
        [ $(($(now) - start)) -gt 70 ] && break
    done
    echo "@@ MARK again" > /dev/console
}

step "connect" connect --reconnect-delay="$RECONNECT_DELAY" --ctrl-loss-tmo=600
step "read over the card's panic" read_over_the_gap
step "verified I/O" verified_io 8
step "disconnect" disconnect
finish
