import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { frameDatagram } from '@cde/tunnel/streams/datagrams.ts';
import { expect, test } from 'vitest';
import { toFailure } from '../../failure/failure.ts';
import { listenUdp } from './udp-forward.ts';

test('a datagram that is too long is said so, and others go on', async () => {
  const stream = new PassThrough();
  const failures: string[] = [];
  let heard = () => {};
  const spec = { local: 0, host: 'localhost', remote: 53, protocol: 'udp' } as const;
  const sessions = { get: async () => ({ open: async () => stream }) };
  const forward = await listenUdp(spec, '127.0.0.1', sessions as never, (error) => {
    failures.push(toFailure(error).code);
    heard();
  });
  const program = createSocket('udp4');
  program.send('hello', forward.port, '127.0.0.1');
  const [echo] = (await once(program, 'message')) as [Buffer];
  expect(echo.toString()).toBe('hello');
  // The system takes no more than 65,507 bytes over IPv4.
  const told = new Promise<void>((resolve) => {
    heard = resolve;
  });
  stream.write(frameDatagram(Buffer.alloc(65_520)));
  await told;
  expect(failures).toEqual(['datagram-too-long']);
  program.close();
  forward.close();
});
