#!/usr/bin/env perl
# Greets: each message is a line with a name, and the answer is a line.
#
#     tine serve --protocol lines --exec 'perl examples/exec/greet.pl'
use strict;
use warnings;

# Each print is flushed. Without it the answer would stay in this process, and the client would wait for ever.
$| = 1;

while (my $line = <STDIN>) {
    $line =~ s/^\s+|\s+$//g;
    print "hello, $line\n";
}
