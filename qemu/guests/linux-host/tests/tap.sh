#: proves verified I/O with and without digests over TAP in a network namespace, checksum offload being agreed
#: limit_s 300
#: wire taps
#: card checksum offload: receive yes, transmit yes
#: same no host connected: (\d+) of (\d+) slots free.*
. /test/lib.sh
TOTAL_MB=${TOTAL_MB:-64}
step "one visit" one_visit
step "connect" connect
step "fio randrw, crc32c, $TOTAL_MB MiB in all" verified_io "$TOTAL_MB"
verified_io_figures
step "disconnect" disconnect
step "connect with header and data digests" connect -g -G
step "fio randrw, crc32c, $TOTAL_MB MiB in all, digests" verified_io "$TOTAL_MB"
verified_io_figures
step "no error in the kernel's log" clean_log
step "disconnect" disconnect
finish
