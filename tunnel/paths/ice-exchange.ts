import { helloOf, type IceCandidate, type IceMessage, makeIceReader, parseCandidate } from './ice.ts';

/** One end's part of the signaling for a path by UDP: what it may send when, and what it accepts from the peer. */
export interface IceExchange {
  /** The candidates of this end, and those of the peer. */
  readonly here: readonly IceCandidate[];
  readonly there: readonly IceCandidate[];
  /** This end has its local description, from which it greets the peer once. Returns false if that has no credentials. */
  greet(sdp: string): boolean;
  /** This end has found a candidate. */
  found(candidate: string): void;
  /** This end has found all candidates. */
  foundAll(): void;
  /** Takes what the peer has sent. Returns false if it is not what the peer may send now. */
  receive(chunk: string): boolean;
}

export function makeIceExchange(
  role: 'offer' | 'answer',
  {
    send,
    onHello,
    onCandidate,
  }: {
    send: (message: IceMessage) => void;
    onHello: (hello: IceMessage & { what: 'hello' }) => void;
    onCandidate: (candidate: string) => void;
  },
): IceExchange {
  const here: IceCandidate[] = [];
  const there: IceCandidate[] = [];
  let hasGreeted = false;
  let isGreeted = false;
  /**
   * Candidates wait until this end has sent its hello. The client's also wait for the agent's hello: otherwise the
   * agent could reach it first, and DTLS would fail in the module's threads for lack of a fingerprint to compare.
   */
  const unsent: IceMessage[] = [];

  function sendAll(): void {
    if (!hasGreeted || (role === 'offer' && !isGreeted)) return;
    for (const message of unsent.splice(0)) send(message);
  }

  function take(message: IceMessage): void {
    if (message.what === 'hello' && !isGreeted) {
      isGreeted = true;
      onHello(message);
      sendAll();
    } else if (message.what === 'candidate' && isGreeted) {
      there.push(parseCandidate(message.candidate)!);
      onCandidate(message.candidate);
    } else if (message.what !== 'all') {
      throw new Error('out of order');
    }
  }
  const read = makeIceReader(take);

  return {
    here,
    there,
    greet(sdp) {
      if (hasGreeted) return true;
      const hello = helloOf(sdp);
      if (!hello) return false;
      hasGreeted = true;
      send(hello);
      sendAll();
      return true;
    },
    found(candidate) {
      const parsed = parseCandidate(candidate);
      // Link-local candidates are useless.
      if (!parsed) return;
      here.push(parsed);
      unsent.push({ what: 'candidate', candidate });
      sendAll();
    },
    foundAll() {
      unsent.push({ what: 'all' });
      sendAll();
    },
    receive(chunk) {
      try {
        return read(chunk);
      } catch {
        // Out of order, or the native module rejected it.
        return false;
      }
    },
  };
}
