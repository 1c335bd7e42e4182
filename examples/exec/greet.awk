# Greets: each message is a line with a name, and the answer is a line.
#
#     tine serve --protocol lines --exec 'awk -f examples/exec/greet.awk'
#
# mawk, which is the awk of Debian, waits for more input than a line, unless it is told not to:
#
#     tine serve --protocol lines --exec 'mawk -W interactive -f examples/exec/greet.awk'

{
    gsub(/^[ \t]+|[ \t\r]+$/, "")
    print "hello, " $0
    # Without it the answer would stay in this process, and the client would wait for ever.
    fflush()
}
