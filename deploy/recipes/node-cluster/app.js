const cluster = require("cluster"), fs = require("fs"), http = require("http"), net = require("net");

// Each worker accepts for itself. With the default, connections that the primary has accepted for
// workers that are about to leave are reset.
cluster.schedulingPolicy = cluster.SCHED_NONE;

if (cluster.isPrimary) {
  const workers = 2;
  let listening = 0;
  for (let i = 0; i < workers; i++) cluster.fork();
  cluster.on("listening", () => {
    if (++listening === workers) fs.writeSync(Number(process.env.NOTIFY_FD), "READY=1");
  });
  let draining = false;
  process.on("SIGTERM", () => {
    draining = true;
    for (const worker of Object.values(cluster.workers)) worker.process.kill("SIGTERM");
  });
  cluster.on("exit", () => {
    if (draining && Object.keys(cluster.workers).length === 0) process.exit(0);
    if (!draining) cluster.fork();
  });
} else {
  let draining = false;
  const server = http.createServer((req, res) => {
    if (draining) res.setHeader("Connection", "close");
    setTimeout(() => res.end("version 1\n"), req.url === "/slow" ? 2000 : 0);
  });
  server.listen({ fd: 3 }); // the primary's descriptor 3
  process.on("SIGTERM", () => {
    draining = true; // each open connection gets one more answer; http's own close would drop the idle ones
    net.Server.prototype.close.call(server, () => process.exit(0));
  });
}
