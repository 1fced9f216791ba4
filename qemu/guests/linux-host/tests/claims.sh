#: proves what nvme-cli asks a controller for beyond reading and writing: lists, log pages, features, Copy, ANA
#: limit_s 240
#: same no host connected: (\d+) of (\d+) slots free.*
. /test/lib.sh

step "connect" connect
CONTROLLER=$(controller)

# The card knows each structure and page that it claims; nvme-cli prints them.
step "list-ctrl" nvme list-ctrl "$CONTROLLER"
step "list-ns" nvme list-ns "$CONTROLLER"
step "list-ns of all allocated" nvme list-ns "$CONTROLLER" --all
step "cmdset-ind-id-ns" nvme cmdset-ind-id-ns "$CONTROLLER" -n "$(nsid "$(namespaces | head -n 1)")"
step "nvm-id-ctrl" nvme nvm-id-ctrl "$CONTROLLER"
step "id-iocs" nvme id-iocs "$CONTROLLER"
step "supported-log-pages" nvme supported-log-pages "$CONTROLLER"
step "changed-ns-list-log" nvme changed-ns-list-log "$CONTROLLER"
step "fid-support-effects-log" nvme fid-support-effects-log "$CONTROLLER"
step "mi-cmd-support-effects-log" nvme mi-cmd-support-effects-log "$CONTROLLER"

# Without a command set nvme-cli 2.3 looks for registers that only controllers of PCIe have, prints nothing, and ends well.
has_effects() {
    nvme effects-log "$CONTROLLER" --csi=0 -H > /tmp/effects || return 1
    cat /tmp/effects
    grep -q 'Get Log Page' /tmp/effects && grep -q 'Compare' /tmp/effects
}
step "effects-log" has_effects
# Later versions ask for the zoned command set as well, and show none where that is refused.
step "effects-log of the zoned command set" nvme effects-log "$CONTROLLER" --csi=2

is_optimized() {
    nvme ana-log "$CONTROLLER" > /tmp/ana || return 1
    cat /tmp/ana
    grep -q 'state.*optimized' /tmp/ana || return 1
    for device in $(namespaces); do
        grep -q "nsid.*:.*$(nsid "$device")$" /tmp/ana || return 1
    done
    grep -q 'live optimized' /tmp/paths || return 1
}
step "list-subsys" sh -c 'nvme list-subsys "$1" > /tmp/paths; cat /tmp/paths' - "$(namespaces | head -n 1)"
step "ANA: all is optimized" is_optimized

for feature in 1 2 4 7 0xa 0xb 0xf 0x16 0x19; do
    step "feature $feature" nvme get-feature "$CONTROLLER" -f "$feature"
done
for feature in 8 9 0xc 0x10 0x80; do
    step "no feature $feature" fails nvme get-feature "$CONTROLLER" -f "$feature"
done

# Eight blocks in two ranges land one behind the other.
copies() {
    size=$(block_size "$1")
    head -c $((16 * size)) /dev/urandom > /tmp/source
    dd if=/tmp/source of="$1" bs="$size" oflag=direct 2> /dev/null || return 1
    nvme copy "$1" --sdlba=64 --slbs=0,8 --blocks=3,3 || return 1
    dd if="$1" of=/tmp/copied bs="$size" skip=64 count=8 iflag=direct 2> /dev/null || return 1
    head -c $((4 * size)) /tmp/source > /tmp/expected
    tail -c +$((8 * size + 1)) /tmp/source | head -c $((4 * size)) >> /tmp/expected
    cmp /tmp/copied /tmp/expected
}
for device in $(namespaces); do
    id=$(nsid "$device")
    step "namespace $id: list-ctrl" nvme list-ctrl "$CONTROLLER" -n "$id"
    step "namespace $id: error recovery time" nvme get-feature "$device" -f 5 -n "$id"
    step "namespace $id: copy" copies "$device"
done
step "disconnect" disconnect
step "no error in the kernel's log" clean_log
finish
