#: proves what a host that is connected and idle costs the card
#: limit_s 720
. /test/lib.sh
step "connect" connect
sleep 3
echo "@@ MARK begin"
sleep "$SECONDS_IDLE"
echo "@@ MARK end"
step "disconnect" disconnect
finish
