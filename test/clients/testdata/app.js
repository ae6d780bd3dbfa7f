// An app in Node, whose core has no unix datagram sockets. So it says READY in one of the two ways that
// need no package: fd, a write to the descriptor NOTIFY_FD, or child, which starts systemd-notify(1).
'use strict';

const { execFile } = require('node:child_process');
const { writeSync } = require('node:fs');
const { createServer } = require('node:http');

const via = process.argv[2];
const body = `generation ${process.env.CRANK_GENERATION}\n`;

function notify(text) {
  if (via === 'fd') {
    writeSync(Number(process.env.NOTIFY_FD), text);
    return;
  }
  execFile('systemd-notify', text.split('\n'), (error) => {
    if (error) {
      console.error(error);
      process.exit(1);
    }
  });
}

const server = createServer((request, response) => {
  response.writeHead(200, { Connection: 'close', 'Content-Length': body.length });
  if (request.url === '/hold') {
    response.flushHeaders();
    request.once('data', () => response.end(body));
    return;
  }
  response.end(body);
});
server.listen({ fd: 3 }, () => notify(`STATUS=serving ${via}\nREADY=1`));
process.on('SIGTERM', () => server.close());
