<?php
// An echo server on Workerman: one worker. Workerman's banner has no address, so this script prints one.
require "vendor/autoload.php";

$probe = stream_socket_server("tcp://127.0.0.1:0");
$address = stream_socket_get_name($probe, false);
fclose($probe);

$worker = new Workerman\Worker("tcp://$address", ["socket" => ["backlog" => 4096]]);
$worker->count = 1;
$worker->onWorkerStart = function () use ($address) {
    echo "workerman: listening on $address\n";
};
$worker->onMessage = function ($connection, $data) {
    $connection->send($data);
};
$GLOBALS["argv"] = [$argv[0], "start", "-q"];
Workerman\Worker::runAll();
