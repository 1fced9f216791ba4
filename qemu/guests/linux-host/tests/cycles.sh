#: proves connecting and disconnecting with I/O in flight, again and again, leaks nothing
#: limit_s 300
#: full_limit_s 900
#: same no host connected: (\d+) of (\d+) slots free.*
. /test/lib.sh
if [ "$FULL" = 1 ]; then CYCLES=200; else CYCLES=${CYCLES:-25}; fi

# Readers and writers are cut off by the disconnect: their own errors do not count.
cycle() {
    connect || return 1
    for device in $(namespaces); do
        dd if="$device" of=/dev/null bs=64k iflag=direct 2> /dev/null &
        dd if=/dev/zero of="$device" bs=16k oflag=direct 2> /dev/null &
    done
    sleep 0.1
    disconnect || return 1
    wait
}
cycles() {
    number=0
    while [ $number -lt "$CYCLES" ]; do
        number=$((number + 1))
        cycle || { echo "cycle $number failed"; return 1; }
    done
}
step "one visit" one_visit
step "$CYCLES cycles" cycles
works() {
    connect || return 1
    for device in $(namespaces); do
        head -c 4096 /dev/urandom > /tmp/a
        dd if=/tmp/a of="$device" bs=4096 count=1 oflag=direct 2> /dev/null || return 1
        dd if="$device" of=/tmp/b bs=4096 count=1 iflag=direct 2> /dev/null || return 1
        cmp /tmp/a /tmp/b || return 1
    done
    disconnect
}
step "still serves" works
finish
