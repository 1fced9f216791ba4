# Serves four RAM disks by Linux's own NVMe/TCP target on 127.0.0.1: what `test linux --against nvmet` runs on.
. /test/environment
/bin/modprobe configfs
mount -t configfs none /sys/kernel/config 2> /dev/null
/bin/modprobe null_blk nr_devices=0 || exit 1
/bin/modprobe nvmet || exit 1
/bin/modprobe nvmet-tcp || exit 1
cd /sys/kernel/config/nvmet || exit 1
mkdir "subsystems/$NQN" || exit 1
echo 1 > "subsystems/$NQN/attr_allow_any_host"
for number in 1 2 3 4; do
    disk=/sys/kernel/config/nullb/disk$number
    mkdir "$disk" || exit 1
    [ $number = 4 ] && echo 4096 > $disk/blocksize
    echo 1 > $disk/memory_backed
    echo 1 > $disk/discard
    echo 512 > $disk/size
    echo 1 > $disk/power || exit 1
    namespace=subsystems/$NQN/namespaces/$number
    mkdir "$namespace" || exit 1
    echo "/dev/disk$number" > "$namespace/device_path"
    [ -b /dev/disk$number ] || echo "/dev/nullb$((number - 1))" > "$namespace/device_path"
    echo 1 > "$namespace/enable" || exit 1
done
for number in 4420 8009; do
    mkdir ports/$number
    echo tcp > ports/$number/addr_trtype
    echo ipv4 > ports/$number/addr_adrfam
    echo 127.0.0.1 > ports/$number/addr_traddr
    echo $number > ports/$number/addr_trsvcid
    ln -s "/sys/kernel/config/nvmet/subsystems/$NQN" "ports/$number/subsystems/$NQN" || exit 1
done
