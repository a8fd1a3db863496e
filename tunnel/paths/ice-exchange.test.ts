import { expect, test } from 'vitest';
import { formatIce, type IceMessage } from './ice.ts';
import { makeIceExchange } from './ice-exchange.ts';

const ours = 'candidate:1 1 UDP 2122317823 192.0.2.1 40000 typ host';
const theirs = 'candidate:1 1 UDP 2122317823 192.0.2.2 40001 typ host';
const fingerprint = Array.from({ length: 32 }, () => 'AB').join(':');
const sdp = `a=ice-ufrag:user\r\na=ice-pwd:${'p'.repeat(22)}\r\na=fingerprint:sha-256 ${fingerprint}\r\n`;
const hello = formatIce({ what: 'hello', ufrag: 'peer', pwd: 'q'.repeat(22), fingerprint });
const candidate = formatIce({ what: 'candidate', candidate: theirs });

function makeEnd(role: 'offer' | 'answer') {
  const sent: IceMessage['what'][] = [];
  const accepted: string[] = [];
  const exchange = makeIceExchange(role, {
    send: ({ what }) => sent.push(what),
    onHello: ({ ufrag }) => accepted.push(ufrag),
    onCandidate: (text) => accepted.push(text),
  });
  return { exchange, sent, accepted };
}

test('the agent sends its candidates after its own hello, without waiting for the client', () => {
  const { exchange, sent } = makeEnd('answer');
  exchange.found(ours);
  expect(sent).toEqual([]);
  expect(exchange.greet(sdp)).toBe(true);
  exchange.foundAll();
  expect(sent).toEqual(['hello', 'candidate', 'all']);
  expect(exchange.here).toMatchObject([{ address: '192.0.2.1' }]);
});

test("the client's candidates also wait for the agent's hello", () => {
  const { exchange, sent, accepted } = makeEnd('offer');
  exchange.greet(sdp);
  exchange.found(ours);
  exchange.foundAll();
  expect(sent).toEqual(['hello']);
  expect(exchange.receive(hello)).toBe(true);
  expect(accepted).toEqual(['peer']);
  expect(sent).toEqual(['hello', 'candidate', 'all']);
});

test('one end greets once, and only with credentials', () => {
  const { exchange, sent } = makeEnd('answer');
  expect(exchange.greet('v=0\r\n')).toBe(false);
  expect(exchange.greet(sdp)).toBe(true);
  expect(exchange.greet('v=0\r\n')).toBe(true);
  expect(sent).toEqual(['hello']);
});

test('link-local candidates are not sent', () => {
  const { exchange, sent } = makeEnd('answer');
  exchange.greet(sdp);
  exchange.found('candidate:1 1 UDP 2122317823 169.254.169.254 40000 typ host');
  expect(sent).toEqual(['hello']);
  expect(exchange.here).toEqual([]);
});

test('the peer greets first and once, then sends candidates', () => {
  const good = makeEnd('answer');
  expect(good.exchange.receive(hello + candidate)).toBe(true);
  expect(good.exchange.there).toMatchObject([{ address: '192.0.2.2', port: 40_001 }]);
  expect(good.exchange.receive(hello)).toBe(false);
  expect(makeEnd('answer').exchange.receive(candidate)).toBe(false);
  expect(makeEnd('answer').exchange.receive('{}\n')).toBe(false);
});
