import { createServer } from 'node:http';
import { connect } from 'node:net';
import { Duplex } from 'node:stream';
import { expect, onTestFinished, test } from 'vitest';
import { defaultBodyRate } from './bodies.ts';
import { forwardRequest } from './forward.ts';
import { listen, stop } from './testing.ts';

/** A port whose program responds as soon as it has received the request; `before` runs just before that. */
function makePort(before: () => void): Duplex {
  const port = new Duplex({
    read() {},
    write(_chunk, _encoding, done) {
      done();
      before();
      port.emit('data', Buffer.from('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'));
    },
  });
  return port;
}

test('a visitor who disconnects as the response arrives ends only their own request', async () => {
  let forwarded: Promise<void> | undefined;
  const server = createServer((request, response) => {
    forwarded = forwardRequest(request, response, {
      stream: makePort(() => response.destroy()),
      opened: Promise.resolve(),
      path: '/',
      visit: { port: 3000, origin: 'http://localhost', prefix: null, isPublic: true, clientIp: '127.0.0.1' },
      bodyRate: defaultBodyRate,
    });
  });
  onTestFinished(() => stop(server));
  const visitor = connect(await listen(server), '127.0.0.1').on('error', () => {});
  const closed = new Promise((resolve) => visitor.once('close', resolve));
  visitor.write('GET / HTTP/1.1\r\nhost: port\r\n\r\n');
  await closed;
  await expect(forwarded).resolves.toBeUndefined();
});
