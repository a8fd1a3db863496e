import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { makeFixture } from './fixture.ts';

test('a stream that has ended before SSH is served on it is closed', async () => {
  const fixture = await makeFixture();
  const server = createServer({ allowHalfOpen: true }, async (stream: Socket) => {
    stream.resume();
    await once(stream, 'end');
    fixture.server.serve(stream);
  });
  server.listen(join(fixture.folder, 'ended'));
  await once(server, 'listening');
  const client = connect(join(fixture.folder, 'ended'));
  client.end();
  client.resume();
  await once(client, 'close');
  expect(client.readableEnded).toBe(true);
  server.close();
  await once(server, 'close');
  await fixture.close();
});
