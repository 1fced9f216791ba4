#: proves what 4 KiB commands cost the card in instructions, each block read being checked against its CRC
#: limit_s 1200
. /test/lib.sh
SIZE=64m

# io JOB OPTION...: fio over the first namespace; its report goes to /tmp/JOB.json.
io() {
    job=$1
    shift
    fio --name="$job" --filename="$DEVICE" --size=$SIZE --ioengine=libaio --direct=1 --verify=crc32c \
        --verify_fatal=1 --output-format=json --output="/tmp/$job.json" "$@"
}
fill() { io fill --rw=write --bs=256k --iodepth=4 --verify_interval=4096 --do_verify=0; }

# Commands that fio has had completed, reads and writes.
completed() {
    sed -n 's/.*"total_ios" : \([0-9]*\).*/\1/p' "$1" | head -n 2 | { read -r a; read -r b; echo $((a + b)); }
}
# measured KIND OPTION...: the harness takes its counts at the marks, from a counter that lags a little.
measured() {
    kind=$1
    shift
    sleep 0.5
    echo "@@ MARK begin"
    sleep 0.5
    io "$kind" --bs=4k --number_ios="$COMMANDS" "$@" > /tmp/measured.log 2>&1
    result=$?
    [ $result = 0 ] || cat /tmp/measured.log
    echo "@@ MARK end $kind $(completed "/tmp/$kind.json")"
    sleep 0.5
    return $result
}
step "connect" connect
DEVICE=$(namespaces | head -n 1)
step "write a pattern" fill
# Depth 32 in all, whatever the number of jobs.
READS="--rw=randread --iodepth=$((32 / JOBS))"
if [ "$JOBS" -gt 1 ]; then
    READS="$READS --numjobs=$JOBS --number_ios=$((COMMANDS / JOBS)) --group_reporting"
    READS="$READS --cpus_allowed=0-$((JOBS - 1)) --cpus_allowed_policy=split"
fi
for run in $(seq "$RUNS"); do
    echo "@@ STEP read at depth 32, run $run"
    # shellcheck disable=SC2086
    measured read-32 $READS --randseed="$run" && echo "@@ OK read at depth 32, run $run" \
        || { echo "@@ FAIL read at depth 32, run $run"; FAILURES=$((FAILURES + 1)); }
    grep -o '"iops" : [0-9.]*' /tmp/read-32.json | head -n 1
done
echo "@@ STEP read at depth 1"
COMMANDS=$((COMMANDS / 5))
measured read-1 --rw=randread --iodepth=1 && echo "@@ OK read at depth 1" \
    || { echo "@@ FAIL read at depth 1"; FAILURES=$((FAILURES + 1)); }
COMMANDS=$((COMMANDS * 5))
echo "@@ STEP write at depth 32"
measured write-32 --rw=randwrite --iodepth=32 --do_verify=0 && echo "@@ OK write at depth 32" \
    || { echo "@@ FAIL write at depth 32"; FAILURES=$((FAILURES + 1)); }
step "all blocks are as written" io check --rw=read --bs=4k --iodepth=32
# What the checks are worth: one block that is changed behind fio's back is found.
finds_a_change() {
    head -c 4096 /dev/urandom | dd of="$DEVICE" bs=4096 seek=5 count=1 oflag=direct iflag=fullblock 2> /dev/null
    io changed --rw=randread --bs=4k --iodepth=32 > /tmp/changed.log 2>&1 && return 1
    grep -q -e 'verify: bad' -e 'verify failed' /tmp/changed.log || { cat /tmp/changed.log; return 1; }
}
step "a changed block is noticed" finds_a_change
step "no error in the kernel's log" clean_log
step "disconnect" disconnect
finish
