# Common to all tests of the Linux host. A test sources this file, calls `step`, and ends with `finish`.
. /test/environment
FAILURES=0
NQN_OPTION="-t tcp -a $ADDRESS -s $PORT -n $NQN"

# step NAME COMMAND...: runs the command, which succeeds; prints its output when it does not.
step() {
    name=$1
    shift
    echo "@@ STEP $name"
    if "$@" > /tmp/step.log 2>&1; then
        echo "@@ OK $name"
    else
        echo "exit code $? of: $*"
        tail -n 40 /tmp/step.log
        echo "@@ FAIL $name"
        FAILURES=$((FAILURES + 1))
    fi
}

# fails COMMAND...: runs the command, which fails. (`! COMMAND` is no test under `sh -e`.)
fails() {
    if "$@"; then
        echo "this succeeds and should not: $*"
        return 1
    fi
}

# lacks WORD: whether the target under test does not know a command (Linux's own target, for one).
lacks() {
    case " $LACKS " in *" $1 "*) return 0 ;; esac
    return 1
}

# connect [OPTIONS]: connects and waits for all namespaces.
connect() {
    nvme connect $NQN_OPTION "$@" || return 1
    wait_for_namespaces
}

wait_for_namespaces() {
    tries=0
    while [ "$(namespaces | wc -w)" -lt "$NAMESPACES" ]; do
        tries=$((tries + 1))
        [ $tries -gt 100 ] && echo "only these namespaces came: $(namespaces)" && return 1
        sleep 0.1
    done
}

disconnect() {
    nvme disconnect -n "$NQN"
}

# A host that comes and goes in peace: the card then says what it has free, to compare with later.
one_visit() {
    connect && disconnect && sleep 2
}

# Block devices of all namespaces, by namespace id. Linux scans namespaces in parallel and numbers the devices as
# they come: /dev/nvme0n2 is another namespace after the next connect.
namespaces() {
    for device in /dev/nvme[0-9]*n[0-9]*; do
        [ -b "$device" ] && echo "$(cat "/sys/block/${device##*/}/nsid") $device"
    done | sort -n | cut -d ' ' -f 2
}

nsid() {
    cat "/sys/block/${1##*/}/nsid"
}

# The device of that namespace id.
device_of() {
    for device in $(namespaces); do
        [ "$(nsid "$device")" = "$1" ] && echo "$device"
    done
}

# The device of the namespace of that drive of a scenario, by the drive's name.
drive() {
    eval "device_of \$NSID_$(echo "$1" | tr - _)"
}

# drive_comes NAME, drive_goes NAME: waits until that drive's namespace is there, or is not.
drive_comes() {
    wait_30_s drive_is_there "$1" || { echo "the namespace of drive $1 has not come in 30 s"; return 1; }
}

drive_goes() {
    wait_30_s drive_is_gone "$1" || { echo "the namespace of drive $1 is still there after 30 s"; return 1; }
}

drive_is_there() {
    [ -n "$(drive "$1")" ]
}

drive_is_gone() {
    [ -z "$(drive "$1")" ]
}

# wait_30_s COMMAND...: until the command succeeds.
wait_30_s() {
    end=$(($(date +%s) + 30))
    until "$@"; do
        [ "$(date +%s)" -gt $end ] && return 1
        sleep 0.1
    done
}

# The controller's character device.
controller() {
    for device in /dev/nvme[0-9] /dev/nvme[0-9][0-9]; do
        [ -c "$device" ] && echo "$device" && return 0
    done
    return 1
}

block_size() {
    cat "/sys/block/${1##*/}/queue/logical_block_size"
}

# Fails when the kernel's log tells of an error, a time-out or a retry of the NVMe host.
clean_log() {
    dmesg | grep -iE 'nvme|I/O error|blk_update|Buffer I/O|EXT4-fs error|XFS.*(corrupt|error)' \
        | grep -iE 'error|time.?out|timed out|retr|abort|reset|failed|corrupt|lost|reconnect|stuck' \
        | grep -vE 'new ctrl|Removing ctrl|mapped|creating' > /tmp/errors.log || true
    cat /tmp/errors.log
    [ ! -s /tmp/errors.log ]
}

# verified_io MB: random reads and writes of one block to 1 MiB at depth 64 on all namespaces at once, MB in all,
# every read checked.
verified_io() {
    each=$(($1 / NAMESPACES))
    cat > /tmp/verify.fio << GLOBAL
[global]
ioengine=libaio
direct=1
rw=randrw
iodepth=64
size=${each}m
verify=crc32c
verify_fatal=1
verify_backlog=256
randseed=20261122
group_reporting=1
GLOBAL
    for device in $(namespaces); do
        size=$(block_size "$device")
        printf '[%s]\nfilename=%s\nbsrange=%s-1m\nblockalign=%s\n' "${device##*/}" "$device" "$size" "$size"
    done >> /tmp/verify.fio
    fio --output=/tmp/fio.log /tmp/verify.fio
}

# Tells the harness what the last verified_io moved.
verified_io_figures() {
    sed -n 's/^ *\(READ\|WRITE\): bw=\([^ ]*\).*io=\([^ ]*\).*/@@ FIGURE fio-\1 \2 \3/p' /tmp/fio.log
    grep -E 'err=|IOPS=' /tmp/fio.log
}

figure() {
    echo "@@ FIGURE $*"
}

finish() {
    exit "$FAILURES"
}
