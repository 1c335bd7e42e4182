// An echo server on Node.js: one process, which writes what it reads without a pipe.
const net = require("net");

const server = net.createServer((socket) => {
  socket.setNoDelay(true);
  socket.on("data", (bytes) => {
    if (!socket.write(bytes)) {
      socket.pause();
      socket.once("drain", () => socket.resume());
    }
  });
  socket.on("error", () => socket.destroy());
});
server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () => {
  console.log(`node: listening on 127.0.0.1:${server.address().port}`);
});
