const fs = require("fs"), http = require("http"), net = require("net");

let draining = false;
const server = http.createServer((req, res) => {
  if (draining) res.setHeader("Connection", "close");
  if (req.url === "/slow") setTimeout(() => res.end("version 1\n"), 2000); // so that you can see it drain
  else res.end("version 1\n");
});

// The socket that crank holds; READY=1 to the descriptor that it gives.
server.listen({ fd: 3 }, () => fs.writeSync(Number(process.env.NOTIFY_FD), "READY=1"));

process.on("SIGTERM", () => {
  draining = true; // each open connection gets one more answer; http's own close would drop the idle ones
  net.Server.prototype.close.call(server, () => process.exit(0));
});
