#: proves discovery, every connect variant, and each command of nvme-cli on each namespace
#: limit_s 240
#: same no host connected: (\d+) of (\d+) slots free.*
. /test/lib.sh

discovers() {
    nvme discover -t tcp -a "$ADDRESS" -s "$1" > /tmp/found || return 1
    cat /tmp/found
    grep -q "subnqn: *$NQN" /tmp/found
}
step "discover at $PORT" discovers "$PORT"
step "discover at 8009" discovers 8009

# The card's own discovery service is told of by the port that hosts know it by.
own_discovery() {
    nvme discover -t tcp -a "$ADDRESS" -s "$PORT" -o json > /tmp/found || return 1
    cat /tmp/found
    tr -d ' \n' < /tmp/found | tr '}' '\n' | grep '"subtype":"currentdiscoverysubsystem"' > /tmp/own
    grep -q '"trsvcid":"8009"' /tmp/own && ! grep -q "\"trsvcid\":\"$PORT\"" /tmp/own
}
step "the discovery service's own entry" own_discovery

# It takes the subsystem alone, and without TLS.
connects_all() {
    nvme connect-all -t tcp -a "$ADDRESS" -s "$PORT" || return 1
    [ "$(cat /sys/class/nvme/nvme*/subsysnqn)" = "$NQN" ] || return 1
    wait_for_namespaces && disconnect
}
step "connect-all" connects_all

# A block written at each end of every namespace comes back, with that kind of connection.
round_trip() {
    connect "$@" || return 1
    for device in $(namespaces); do
        head -c 65536 /dev/urandom > /tmp/pattern
        dd if=/tmp/pattern of="$device" bs=65536 conv=fsync 2> /dev/null || return 1
        echo 3 > /proc/sys/vm/drop_caches
        dd if="$device" of=/tmp/back bs=65536 count=1 2> /dev/null || return 1
        cmp /tmp/pattern /tmp/back || return 1
    done
    disconnect
}
step "connect" round_trip
step "connect with header and data digests" round_trip -g -G
step "connect with a header digest" round_trip -g
step "connect with a data digest" round_trip -G
step "connect without SQ flow control" round_trip --disable-sqflow
step "connect without flow control, with digests" round_trip --disable-sqflow -g -G
step "connect with four I/O queues" round_trip -i 4
step "connect with a queue of 16" round_trip -Q 16

step "connect for commands" connect
CONTROLLER=$(controller)
step "list" nvme list
step "id-ctrl" nvme id-ctrl "$CONTROLLER"
step "smart-log" nvme smart-log "$CONTROLLER"
step "error-log" nvme error-log "$CONTROLLER"
step "fw-log" nvme fw-log "$CONTROLLER"

is_zero() {
    dd if="$1" of=/tmp/zero bs="$(block_size "$1")" count=8 skip=8 iflag=direct 2> /dev/null || return 1
    [ -z "$(tr -d '\000' < /tmp/zero | head -c 1)" ]
}
fills() {
    head -c $((32 * $(block_size "$1"))) /dev/urandom > /tmp/fill
    dd if=/tmp/fill of="$1" bs="$(block_size "$1")" oflag=direct 2> /dev/null
}
zeroes() {
    fills "$1" || return 1
    nvme write-zeroes "$1" -s 8 -c 7 || return 1
    is_zero "$1"
}
# Compare succeeds on equal data and fails on other data.
compares() {
    size=$(block_size "$1")
    fills "$1" || return 1
    head -c $((4 * size)) /tmp/fill > /tmp/same
    nvme compare "$1" -s 0 -c 3 -z $((4 * size)) -d /tmp/same || return 1
    head -c $((4 * size)) /dev/urandom > /tmp/other
    ! nvme compare "$1" -s 0 -c 3 -z $((4 * size)) -d /tmp/other
}
# A block beyond the end is refused, and the namespace goes on.
refuses_beyond() {
    size=$(block_size "$1")
    blocks=$(($(cat "/sys/block/${1##*/}/size") * 512 / size))
    head -c "$size" /dev/zero > /tmp/block
    ! nvme write "$1" -s "$blocks" -c 0 -z "$size" -d /tmp/block || return 1
    fills "$1"
}
for device in $(namespaces); do
    id=$(nsid "$device")
    step "namespace $id: id-ns" nvme id-ns "$device"
    step "namespace $id: write-zeroes" zeroes "$device"
    step "namespace $id: dsm -d" nvme dsm "$device" -d -s 16 -b 8
    lacks compare || step "namespace $id: compare" compares "$device"
    lacks verify || step "namespace $id: verify" nvme verify "$device" -s 0 -c 7
    step "namespace $id: flush" nvme flush "$device"
    step "namespace $id: beyond the end" refuses_beyond "$device"
done
step "disconnect" disconnect
step "no error in the kernel's log" clean_log
finish
