<?php
// Greets: each message is a line with a name, and the answer is a line.
//
//     tine serve --protocol lines --exec 'php examples/exec/greet.php'

while (($line = fgets(STDIN)) !== false) {
    // fwrite to STDOUT is not buffered by PHP; after echo, call flush().
    fwrite(STDOUT, 'hello, ' . trim($line) . "\n");
}
