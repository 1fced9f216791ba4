#: proves random reads and writes of 512 bytes to 1 MiB, depth 64, on all namespaces at once, with verified data
#: limit_s 420
#: full_limit_s 2400
#: same no host connected: (\d+) of (\d+) slots free.*
. /test/lib.sh
step "connect" connect
if [ "$FULL" = 1 ]; then TOTAL_MB=1024; else TOTAL_MB=${TOTAL_MB:-256}; fi
EACH_MB=$((TOTAL_MB / NAMESPACES))

job() {
    size=$(block_size "$1")
    largest=1m
    cat << JOB
[${1##*/}]
filename=$1
bsrange=$size-$largest
blockalign=$size
JOB
}
{
    cat << GLOBAL
[global]
ioengine=libaio
direct=1
rw=randrw
iodepth=64
size=${EACH_MB}m
verify=crc32c
verify_fatal=1
verify_backlog=256
randseed=20261122
group_reporting=1
GLOBAL
    for device in $(namespaces); do job "$device"; done
} > /tmp/verify.fio
step "fio randrw, crc32c, $TOTAL_MB MiB in all" fio --output=/tmp/fio.log /tmp/verify.fio
sed -n 's/^ *\(READ\|WRITE\): bw=\([^ ]*\).*io=\([^ ]*\).*/@@ FIGURE fio-\1 \2 \3/p' /tmp/fio.log
grep -E 'err=|IOPS=' /tmp/fio.log
step "no error in the kernel's log" clean_log
step "disconnect" disconnect
finish
