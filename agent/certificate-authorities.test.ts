import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { trustCertificateAuthorities } from './certificate-authorities.ts';

test('after it, requests and WebSockets to a server of that authority work, and before it they do not', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'cde-ca-'));
  const words = 'req -x509 -newkey ed25519 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1';
  execFileSync('openssl', [...words.split(' '), '-keyout', 'key.pem', '-out', 'cert.pem'], {
    cwd: folder,
    stdio: 'ignore',
  });
  const [key, cert] = ['key.pem', 'cert.pem'].map((name) => readFileSync(join(folder, name), 'utf8'));
  rmSync(folder, { recursive: true });
  const server = createServer({ cert: cert!, key: key! }, (_, response) => response.end('hello'));
  const sockets = new WebSocketServer({ server });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
    sockets.close();
  });
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  await expect(fetch(url)).rejects.toThrow();
  trustCertificateAuthorities(`a comment\n${cert}\n`);
  expect(await (await fetch(url)).text()).toBe('hello');
  const socket = new WebSocket(url.replace('https', 'wss'));
  await once(socket, 'open');
  socket.terminate();
});
