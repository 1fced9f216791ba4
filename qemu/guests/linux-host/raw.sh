# Hosts that are no Linux driver: NVMe/TCP PDUs made by hand and sent by `nc`, for what a proper driver never does.
# A host has a NAME: what is written to its input goes to the card, what comes back is in /tmp/NAME.in.
. /test/lib.sh

# zeros BYTES: small numbers without a process, which costs much under emulation.
zeros() {
    if [ "$1" -gt 32 ]; then head -c "$1" /dev/zero; else number "$1" 0; fi
}

# number BYTES VALUE: little-endian.
number() {
    value=$2
    left=$1
    while [ "$left" -gt 0 ]; do
        printf "\\$((value >> 6 & 3))$((value >> 3 & 7))$((value & 7))"
        value=$((value >> 8))
        left=$((left - 1))
    done
}

# padded BYTES TEXT
padded() {
    printf %s "$2"
    zeros $(($1 - ${#2}))
}

# ICReq (NVMe/TCP 1.0, 3.6.2.2): no digests, no alignment.
initialize_request() {
    number 2 0 && number 2 128 && number 4 128
    zeros 120
}

# capsule CID OPCODE FLAGS: header and the first 4 bytes of the command; 60 bytes are to follow.
capsule() {
    number 2 4 && number 1 72 && number 1 "${4:-0}" && number 4 $((72 + ${5:-0}))
    number 1 "$2" && number 1 $((0x40)) && number 2 "$1"
}

# connect_command QID CNTLID HOST: Connect (Base 2.0, 6.3) of a queue of 64 entries, without keep alive.
connect_command() {
    capsule 1 $((0x7f)) 0 72 1024
    number 1 1 && zeros 19
    zeros 8 && number 4 1024 && zeros 3 && number 1 1
    number 2 0 && number 2 "$1" && number 2 63 && number 2 0 && number 4 0 && zeros 12
    printf %016d "$3" && number 2 "$2" && zeros 238
    padded 256 "$NQN" && padded 256 "nqn.2014-08.org.nvmexpress:raw-$3" && zeros 256
}

# Sets CC.EN with the sizes of queue entries (Property Set, Base 2.0, 6.6).
enable_command() {
    capsule 2 $((0x7f))
    number 1 0 && zeros 19
    zeros 16
    number 4 0 && number 4 20 && number 8 $((0x460001)) && zeros 8
}

# io_command CID OPCODE NSID BLOCK BLOCKS BYTES: a read or write of data that is not in the capsule.
io_command() {
    capsule "$1" "$2"
    number 4 "$3" && zeros 16
    zeros 8 && number 4 "$6" && zeros 3 && number 1 $((0x5a))
    number 8 "$4" && number 4 $(($5 - 1)) && zeros 12
}

# data_header CID TAG BYTES: H2CData (3.6.2.8) with all of a command's data, whose bytes are to follow.
data_header() {
    number 1 6 && number 1 4 && number 1 24 && number 1 24 && number 4 $((24 + $3))
    number 2 "$1" && number 2 "$2" && number 4 0 && number 4 "$3" && number 4 0
}

# write_4k NAME CID NSID BLOCK FILE: the file's 4 KiB as a write of 8 blocks; its end is 24 more bytes.
write_4k() {
    before=$(wc -c < "/tmp/$1.in")
    io_command "$2" 1 "$3" "$4" 8 4096 > "/tmp/$1.out"
    received "$1" $((before + 24))
    tag=$(od -A n -t u2 -j $((before + 10)) -N 2 "/tmp/$1.in")
    { data_header "$2" $tag 4096 && cat "$5"; } > "/tmp/$1.out"
}

# raw NAME: opens a connection and exchanges ICReq and ICResp.
raw() {
    mkfifo "/tmp/$1.out"
    nc "$ADDRESS" "$PORT" < "/tmp/$1.out" > "/tmp/$1.in" 2> /dev/null &
    echo $! > "/tmp/$1.pid"
    # A writer that stays keeps the connection open.
    sleep 1000 > "/tmp/$1.out" &
    initialize_request > "/tmp/$1.out"
    received "$1" 128
}

# received NAME BYTES: waits until so many bytes have come in all.
received() {
    tries=0
    until [ "$(wc -c < "/tmp/$1.in")" -ge "$2" ]; do
        tries=$((tries + 1))
        [ $tries -gt 100 ] && echo "$1 got $(wc -c < "/tmp/$1.in") bytes of $2" && return 1
        sleep 0.1
    done
}

# is_open NAME
is_open() {
    kill -0 "$(cat "/tmp/$1.pid")"
}

# raw_admin NAME HOST: an enabled controller; its identifier goes to /tmp/NAME.id.
raw_admin() {
    raw "$1"
    connect_command 0 65535 "$2" > "/tmp/$1.out"
    received "$1" 152
    od -A n -t u2 -j 136 -N 2 "/tmp/$1.in" | tr -d ' ' > "/tmp/$1.id"
    enable_command > "/tmp/$1.out"
    received "$1" 176
}

# raw_io NAME ADMIN HOST [QID]: an I/O queue of that controller.
raw_io() {
    raw "$1"
    connect_command "${4:-1}" "$(cat "/tmp/$2.id")" "$3" > "/tmp/$1.out"
    received "$1" 152
}

# trickle NAME: a zero byte each second, for ever.
trickle() {
    while :; do
        number 1 0
        sleep 1
    done > "/tmp/$1.out"
}
