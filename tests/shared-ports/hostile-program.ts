import { once } from 'node:events';
import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { until } from '../kit/until.ts';
import type { Ports } from './fixture.ts';
import { makeHostileProgram } from './programs.ts';

/** A program that violates HTTP must not harm the proxy or other visitors. */
export function hostileProgram(ports: Ports): void {
  const { portHost, send, share, site, sitePort } = ports;

  describe('a malicious program', () => {
    let hostile: Awaited<ReturnType<typeof makeHostileProgram>>;
    beforeAll(async () => {
      hostile = await makeHostileProgram();
      await share('public', hostile.port);
    });
    afterAll(async () => {
      await share(null, hostile.port);
      hostile.close();
    });
    /** Sends exactly this text and collects the response; `leave` closes the connection. */
    function visit(text: string) {
      const { hostname, port: at } = new URL(site().url);
      const socket = connect(Number(at), hostname).on('error', () => {});
      onTestFinished(() => void socket.destroy());
      const visitor = { got: '', leave: () => socket.end() };
      socket.on('data', (data) => {
        visitor.got += data.toString('latin1');
      });
      socket.write(text, 'latin1');
      return visitor;
    }
    const asks = (more = '', host = portHost(hostile.port)) =>
      `GET / HTTP/1.1\r\nHost: ${host}:${sitePort()}\r\n${more}\r\n`;
    const upgrade =
      'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n';

    test.each([
      ['a status that is none', 'HTTP/1.1 099 x\r\ncontent-length: 0\r\n\r\n', '502', '502'],
      [
        'a reason that nobody may send',
        'HTTP/1.1 400 b\x01\x7fd\r\ncontent-length: 0\r\n\r\n',
        '400 b  d',
        '400 b  d',
      ],
      [
        'a body that is none',
        'HTTP/1.1 400 no\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\nZZ\r\n',
        '400 no',
        '400 no',
      ],
      ['a protocol of its own', 'HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n', '502', '101'],
      ['half an upgrade', 'HTTP/1.1 101 x\r\n\r\n', '502', '502'],
      ['a thousand promises', 'HTTP/1.1 102 Processing\r\n\r\n'.repeat(1_000), '502', '502'],
      ['a refusal', 'HTTP/1.1 403 no\r\ncontent-length: 0\r\n\r\n', '403', '403'],
      ['nothing', '', '', ''],
    ])('answers with %s', async (_, reply, toRequest, toUpgrade) => {
      hostile.reply = reply;
      for (const [more, expected] of [
        ['', toRequest],
        [upgrade, toUpgrade],
      ] as const) {
        const visitor = visit(asks(more));
        await until(
          async () => (expected ? visitor.got : `${hostile.sockets.size}`),
          (got) => (expected ? got.startsWith(`HTTP/1.1 ${expected}`) : got === '1'),
        );
        visitor.leave();
        // Its connection is closed, although the program would keep it open.
        await until(
          async () => hostile.sockets.size,
          (left) => left === 0,
        );
      }
      // Other visitors are not affected.
      expect(await send('/', { host: portHost() })).toMatchObject({ status: 200 });
    });

    test.each([
      'refused by us',
      'refused by the program',
    ])('a WebSocket that was %s is not kept by a visitor who does not hang up', async (by) => {
      hostile.reply = 'HTTP/1.1 403 no\r\ncontent-length: 0\r\n\r\n';
      const { hostname, port: at } = new URL(site().url);
      const socket = connect({ port: Number(at), host: hostname, allowHalfOpen: true });
      socket.on('error', () => {}).resume();
      const closed = new Promise((resolve) => socket.once('close', resolve));
      socket.write(asks(upgrade, portHost(by === 'refused by us' ? 1 : hostile.port)));
      await once(socket, 'end');
      // Writing to a closed connection fails.
      const writing = setInterval(() => socket.write('x'), 100);
      await closed.finally(() => clearInterval(writing));
    });

    test('a body cannot be parsed as another request', async () => {
      hostile.reply = 'HTTP/1.1 200 ok\r\ncontent-length: 0\r\n\r\n';
      const body = 'GET /second HTTP/1.1\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n';
      visit(asks(`Connection: content-length\r\nContent-Length: ${body.length}\r\n`) + body);
      await until(
        async () => hostile.got,
        (got) => got.endsWith(body),
      );
      expect(hostile.got.toLowerCase()).toContain(`content-length: ${body.length}\r\n`);
    });
  });
}
