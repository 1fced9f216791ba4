#: proves ext4 and xfs: files survive unmount, disconnect and reconnect, with the same checksums
#: limit_s 240
#: same no host connected: (\d+) of (\d+) slots free.*
. /test/lib.sh

fill() {
    for number in 1 2 3 4 5 6 7 8; do
        mkdir -p "/mnt/folder$number"
        for file in 1 2 3 4 5; do
            head -c $((number * file * 7919)) /dev/urandom > "/mnt/folder$number/file$file"
        done
    done
    head -c 8000000 /dev/urandom > /mnt/large
    (cd /mnt && find . -type f | sort | xargs sha256sum) > "$1"
}
same() {
    (cd /mnt && find . -type f | sort | xargs sha256sum) > /tmp/now
    cmp "$1" /tmp/now
}
check_ext4() { /bin/e2fsck -f -n "$1"; }
check_xfs() { xfs_repair -n "$1"; }

try() {
    kind=$1
    id=$2
    device=$(device_of "$id")
    /bin/modprobe -q "$kind"
    case $kind in
        ext4) step "mkfs.ext4 on namespace $id" /bin/mke2fs -q -F -t ext4 "$device" ;;
        xfs) step "mkfs.xfs on namespace $id" mkfs.xfs -q -f "$device" ;;
    esac
    step "$kind: mount" mount -t "$kind" "$device" /mnt
    step "$kind: write files" fill "/tmp/$kind.sums"
    step "$kind: unmount" umount /mnt
    step "$kind: disconnect" disconnect
    step "$kind: reconnect" connect
    device=$(device_of "$id")
    step "$kind: check" "check_$kind" "$device"
    step "$kind: mount again" mount -t "$kind" "$device" /mnt
    step "$kind: same checksums" same "/tmp/$kind.sums"
    step "$kind: unmount again" umount /mnt
}
step "connect" connect
first=$(nsid "$(namespaces | head -n 1)")
last=$(nsid "$(namespaces | tail -n 1)")
try ext4 "$first"
try xfs "$last"
step "no error in the kernel's log" clean_log
step "disconnect" disconnect
finish
