/** For tests: the other end of a UDP path in its own process. Signals over stdin and stdout, and echoes. */
import { Duplex } from 'node:stream';
import { connectUdp } from './direct-udp.ts';

const path = await connectUdp('answer', Duplex.from({ readable: process.stdin, writable: process.stdout }), {
  bindAddress: '127.0.0.1',
  timeoutMs: 10_000,
  signal: new AbortController().signal,
});
path.start({ data: (chunk) => void path.send(chunk), drain() {}, closed: () => {} });
