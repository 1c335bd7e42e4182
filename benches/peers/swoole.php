<?php
// An echo server on Swoole, in the mode of its argument, base or process: one worker, one reactor.
$mode = $argv[1] === "base" ? SWOOLE_BASE : SWOOLE_PROCESS;
$server = new Swoole\Server("127.0.0.1", 0, $mode);
$server->set([
    "worker_num" => 1,
    "reactor_num" => 1,
    "backlog" => 4096,
    "open_tcp_nodelay" => true,
    "max_connection" => 20000,
    "log_level" => SWOOLE_LOG_ERROR,
]);
$server->on("start", function ($server) {
    echo "swoole: listening on 127.0.0.1:{$server->port}\n";
});
$server->on("receive", function ($server, $fd, $reactor, $data) {
    $server->send($fd, $data);
});
$server->start();
