// Node's http server as its documentation closes it: on TERM close and closeIdleConnections.
const fs = require("fs"), http = require("http");

const hello = `hello from Node, generation ${process.env.CRANK_GENERATION}\n`;
const server = http.createServer((req, res) => {
  req.resume().on("end", () => {
    if (req.url === "/slow") setTimeout(() => res.end(hello), 1500);
    else res.end(hello);
  });
});
server.listen({ fd: 3 }, () => fs.writeSync(Number(process.env.NOTIFY_FD), "READY=1"));

process.on("SIGTERM", () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections(); // since Node 19 close does it as well
});
