import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net';
import { WebSocketServer } from 'ws';

/** A program that reports its requests as JSON, and serves an echo, events, redirects, large responses and a WebSocket. */
export function makeProgram() {
  const seen: { url: string; method: string; headers: IncomingHttpHeaders }[] = [];
  const sockets = new WebSocketServer({ noServer: true });
  const http: Server = createServer(async (request, response) => {
    seen.push({ url: request.url!, method: request.method!, headers: request.headers });
    const path = request.url!.split('?')[0];
    if (path === '/echo') return void request.pipe(response);
    if (path === '/events') {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      return void response.write('data: first\n\n');
    }
    if (path === '/away') {
      response.writeHead(302, { location: `http://localhost:${program.port}/here?x=1` });
      return void response.end();
    }
    if (path === '/big') {
      const piece = Buffer.alloc(256 * 1024, 'x');
      let written = 0;
      response.writeHead(200);
      response.on('close', () => {
        program.written = written;
      });
      const more = () => {
        while (written < 64 * 1024 * 1024) {
          written += piece.length;
          program.written = written;
          if (!response.write(piece)) return void response.once('drain', more);
        }
        response.end();
      };
      return more();
    }
    if (path === '/headers')
      response.setHeaders(
        new Map<string, string | string[]>([
          [
            'set-cookie',
            [
              'app=1; Path=/; Domain=localhost',
              'cde_session=stolen; Path=/',
              'cde_port=planted',
              '__Host-cde_port=x',
              '=cde_port=nameless',
            ],
          ],
          ['clear-site-data', '"cookies"'],
          ['x-accel-redirect', '/internal'],
          ['access-control-allow-origin', '*'],
          ['service-worker-allowed', '/'],
          ['content-security-policy', 'sandbox allow-same-origin allow-scripts'],
          ['cache-control', 'public, max-age=60'],
          ['x-own', 'yes'],
          ['connection', 'x-hop'],
          ['x-hop', 'of this connection'],
        ]),
      );
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ url: request.url, method: request.method, headers: request.headers }));
  });
  http.on('upgrade', (request, socket, head) => {
    seen.push({ url: request.url!, method: 'UPGRADE', headers: request.headers });
    socket.on('error', () => {});
    if (request.url === '/no')
      return void socket.end('HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno');
    sockets.handleUpgrade(request, socket, head, (client) => {
      client.send('welcome');
      client.on('message', (data, binary) => client.send(data, { binary }));
    });
  });
  const program = {
    /** 0 before it listens. */
    port: 0,
    async listen() {
      http.listen(0, '127.0.0.1');
      await once(http, 'listening');
      program.port = (http.address() as AddressInfo).port;
    },
    seen,
    last: () => seen.at(-1)!,
    /** Bytes of /big written so far. */
    written: 0,
    close() {
      http.closeAllConnections();
      http.close();
    },
  };
  return program;
}

/** A program that answers every connection with `reply`, byte for byte, and never closes one. */
export async function makeHostileProgram() {
  const sockets = new Set<Socket>();
  const program = {
    port: 0,
    reply: '',
    sockets,
    /** What the last visitor sent. */
    got: '',
    close() {
      tcp.close();
      for (const socket of sockets) socket.destroy();
    },
  };
  const tcp = createTcpServer((socket) => {
    sockets.add(socket);
    program.got = '';
    socket.on('error', () => {});
    socket.once('close', () => sockets.delete(socket));
    socket.on('data', (data) => {
      program.got += data.toString('latin1');
    });
    socket.once('data', () => socket.write(program.reply, 'latin1'));
  });
  tcp.listen(0, '127.0.0.1');
  await once(tcp, 'listening');
  program.port = (tcp.address() as AddressInfo).port;
  return program;
}
