const { execFile } = require("child_process"), http = require("http"), net = require("net");

let draining = false;
const server = http.createServer((req, res) => {
  if (draining) res.setHeader("Connection", "close");
  if (req.url === "/slow") setTimeout(() => res.end("version 1\n"), 2000); // so that you can see it drain
  else res.end("version 1\n");
});

// The socket that crank holds is descriptor 0. NOTIFY_FD is lost, so crankctl writes to NOTIFY_SOCKET.
server.listen({ fd: 0 }, () => execFile("crankctl", ["notify", "READY=1"], (err) => { if (err) throw err; }));

process.on("SIGTERM", () => { // from npm
  if (draining) return;
  draining = true; // each open connection gets one more answer; http's own close would drop the idle ones
  net.Server.prototype.close.call(server, () => process.exit(0));
});
