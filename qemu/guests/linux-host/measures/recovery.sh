#: proves that a host's verified I/O goes on by itself after the card has panicked, and how long that takes
#: limit_s 900
. /test/lib.sh
WRITTEN=64m

# The data of the first namespace: written once, flushed, and read over and over, each block checked.
flushed() {
    fio --name=flushed --filename="$(device_number 1)" --size=$WRITTEN --ioengine=libaio --direct=1 --verify=crc32c \
        --verify_interval=4096 --verify_fatal=1 --output=/tmp/flushed.log "$@" || { cat /tmp/flushed.log; return 1; }
}

device_number() {
    namespaces | sed -n "$1p"
}

# Checked reads of the first namespace, whose completions are noted, beside checked writes to the second.
work() {
    cat > /tmp/work.fio << JOBS
[global]
ioengine=libaio
direct=1
verify=crc32c
verify_fatal=1
runtime=$WORK_S
[reads]
filename=$(device_number 1)
size=$WRITTEN
rw=randread
bs=4k
iodepth=4
norandommap
time_based
write_lat_log=/tmp/reads
log_max_value=0
[writes]
filename=$(device_number 2)
rw=randwrite
bs=4k-64k
iodepth=4
size=512m
rate_iops=100
verify_backlog=64
fsync=32
JOBS
    fio --output=/tmp/work.log /tmp/work.fio
}

# Tells each change of the controller's state, until it serves again after the first loss.
tell_states() {
    state=/sys/class/nvme/$(basename "$(controller)")/state
    last=live lost=0
    while :; do
        read -r now < "$state"
        if [ "$now" != "$last" ]; then
            echo "@@ MARK state $now" > /dev/console
            [ "$now" = live ] && return 0
            last=$now
        fi
        usleep 5000
    done
}

# The longest time between two completed reads, in milliseconds.
longest_pause() {
    cat /tmp/reads*_clat*.log | sort -n | awk -F, 'NR > 1 && $1 - last > most { most = $1 - last } { last = $1 }
        END { print most }'
}

over_the_panic() {
    work > /tmp/work.err 2>&1 &
    echo "@@ MARK at-work" > /dev/console
    tell_states &
    watcher=$!
    wait %1 || { cat /tmp/work.err /tmp/work.log; return 1; }
    kill $watcher 2> /dev/null && echo "the host has not noticed any loss, or is not connected again" && return 1
    echo "@@ MARK pause $(longest_pause)" > /dev/console
}

step "connect" connect --reconnect-delay="$RECONNECT_DELAY"
step "write and flush" flushed --rw=write --bs=256k --iodepth=4 --do_verify=0 --end_fsync=1
step "work over the card's panic" over_the_panic
step "what was flushed is there" flushed --rw=read --bs=64k --iodepth=4
step "disconnect" disconnect
finish
