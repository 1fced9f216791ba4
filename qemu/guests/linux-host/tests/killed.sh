#: proves a host that dies in mid-write is forgotten after its keep-alive time-out, and another one is served
#: limit_s 180
#: stages 2
#: same no host connected: (\d+) of (\d+) slots free.*
. /test/lib.sh
if [ "$STAGE" = 1 ]; then
    step "one visit" one_visit
    step "connect" connect -k 5
    for device in $(namespaces); do
        dd if=/dev/zero of="$device" bs=256k oflag=direct 2> /dev/null &
    done
    sleep 1
    # The harness cuts this host's power now.
    echo "@@ KILL"
    sleep 600
fi
step "connect" connect
works() {
    for device in $(namespaces); do
        head -c 65536 /dev/urandom > /tmp/a
        dd if=/tmp/a of="$device" bs=65536 count=1 oflag=direct 2> /dev/null || return 1
        dd if="$device" of=/tmp/b bs=65536 count=1 iflag=direct 2> /dev/null || return 1
        cmp /tmp/a /tmp/b || return 1
    done
}
step "reads and writes" works
step "no error in the kernel's log" clean_log
step "disconnect" disconnect
finish
