# What the Linux host of a scenario (qemu/scenarios) does: pieces of script, as lines on its console ask for them.
#   set NAME=VALUE   a variable of the pieces from now on
#   run N            runs piece N
#   start N          runs it in the background
#   finish N         waits for the end of what was started
# A piece ends at its first command that fails; its end is told by "@@ END N CODE".
stty -echo

report() {
    code=$(cat "/tmp/piece-$1.end")
    [ "$code" = 0 ] || tail -n 40 "/tmp/piece-$1.log"
    grep '^@@ FIGURE' "/tmp/piece-$1.log"
    echo "@@ END $1 $code"
}

piece() {
    rm -f "/tmp/piece-$1.end"
    sh -e "/test/piece-$1" > "/tmp/piece-$1.log" 2>&1 < /dev/null
    echo $? > "/tmp/piece-$1.end.new"
    mv "/tmp/piece-$1.end.new" "/tmp/piece-$1.end"
}

echo "@@ LISTENS"
while read -r verb word; do
    case $verb in
        set) echo "$word" >> /test/environment ;;
        run)
            piece "$word"
            report "$word"
            ;;
        start) piece "$word" & ;;
        finish)
            until [ -e "/tmp/piece-$word.end" ]; do sleep 0.1; done
            report "$word"
            ;;
    esac
done
