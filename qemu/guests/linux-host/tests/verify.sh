#: proves random reads and writes of 512 bytes to 1 MiB, depth 64, on all namespaces at once, with verified data; some of it with header and data digests
#: limit_s 420
#: full_limit_s 2400
#: same no host connected: (\d+) of (\d+) slots free.*
. /test/lib.sh
step "connect" connect
if [ "$FULL" = 1 ]; then TOTAL_MB=1024; else TOTAL_MB=${TOTAL_MB:-256}; fi
step "fio randrw, crc32c, $TOTAL_MB MiB in all" verified_io "$TOTAL_MB"
verified_io_figures
step "disconnect before digests" disconnect
step "connect with header and data digests" connect -g -G
step "fio randrw, crc32c, 16 MiB in all, digests" verified_io 16
step "no error in the kernel's log" clean_log
step "disconnect" disconnect
finish
