import type { AgentManifest } from '@cde/api/agent.ts';
import type { Log } from '@cde/tunnel/log.ts';
import { formatAddress, ownAddresses } from '@cde/tunnel/network/addresses.ts';
import { type DirectListener, listenDirect } from '@cde/tunnel/paths/direct-tcp.ts';
import type { Path } from '@cde/tunnel/pipe/path.ts';

export interface DirectEndpoint {
  /** Listens as the manifest says, or no longer. Tells `onChange` when the addresses are others then. */
  apply(direct: AgentManifest['direct']): Promise<void>;
  /** HOST:PORT of each address at which clients may reach this agent; none while it does not listen. */
  addresses(): string[];
  close(): void;
}

const isLoopback = (host: string) => /^(localhost|127\.[\d.]+|\[?::1\]?)$/.test(host);

/**
 * The network that the agent runs in. `whole`: as the machine, container or pod has it, which is the workspace's alone.
 * `own`: a network namespace on the server's machine, where `directForward` (HOST:PORT) of the machine may lead to that
 * port inside. `shared`: the machine's, with other workspaces and the server itself in it.
 */
export type Network =
  | { kind: 'whole' | 'shared' }
  | {
      kind: 'own';
      directForward: string | undefined;
    };

/** True where the agent uses the loopback address of the server's own machine, and so listens there alone. */
export const isLoopbackOnly = ({
  serverUrl,
  network,
}: Pick<DirectEndpointOptions, 'serverUrl' | 'network'>): boolean =>
  network?.kind !== 'own' && serverUrl.split(/[\s,]+/).every((url) => isLoopback(hostOf(url)));

export interface DirectEndpointOptions {
  /** Where the agent reaches its server: it tells whether a client may be on another machine. */
  serverUrl: string;
  network?: Network;
  onPath: (path: Path, proved: () => void) => void;
  onChange: () => void;
  /** It cannot listen, and why. */
  onFailure: (message: string) => void;
  log: Log;
}

/**
 * The agent's own listener for clients that reach its machine without a satellite. Where the server is on this very
 * machine and for it alone, so is the listener: nobody else's business.
 */
export function makeDirectEndpoint(options: DirectEndpointOptions): DirectEndpoint {
  const loopback = isLoopbackOnly(options);
  const forward = options.network?.kind === 'own' ? options.network.directForward : undefined;
  let currentPort: string | undefined;
  let lastFailure = '';
  let announcedAddresses: string[] = [];
  let listener: DirectListener | undefined;
  let pending: Promise<void> = Promise.resolve();
  let closed = false;

  async function listen(direct: AgentManifest['direct']): Promise<void> {
    const next = direct ? `${direct.port}` : undefined;
    const before = addresses().join(' ');
    announcedAddresses = direct?.addresses ?? [];
    if (next !== currentPort) {
      currentPort = next;
      listener?.close();
      listener = undefined;
      if (direct)
        listener = await open(forward ? Number(forward.slice(forward.lastIndexOf(':') + 1)) : direct.port);
      // The agent before us may still have it: the next manifest tries again.
      if (direct && !listener) currentPort = undefined;
      if (closed) listener?.close();
    }
    if (before !== addresses().join(' ')) options.onChange();
  }

  async function open(port: number): Promise<DirectListener | undefined> {
    const hosts = loopback ? ['127.0.0.1'] : ['::', '0.0.0.0'];
    let why = '';
    for (const host of hosts) {
      try {
        return await listenDirect({ host, port, onPath: options.onPath, log: options.log });
      } catch (error) {
        // Without IPv6 there is no `::`.
        why = (error as Error).message;
      }
    }
    const words = `no direct connections: cannot listen on port ${port}: ${why}`;
    if (words !== lastFailure) options.onFailure(words);
    lastFailure = words;
    return undefined;
  }

  function addresses(): string[] {
    if (!listener) return [];
    if (announcedAddresses.length > 0) return announcedAddresses;
    if (forward) return [forward];
    const { port } = listener;
    return (loopback ? ['127.0.0.1'] : ownAddresses()).map((host) => formatAddress(host, port));
  }

  return {
    apply(direct) {
      pending = pending.then(() => (closed ? undefined : listen(direct)));
      return pending;
    },
    addresses,
    close() {
      closed = true;
      listener?.close();
    },
  };
}

function hostOf(url: string): string {
  try {
    return new URL(url).hostname;
  } catch {
    return '';
  }
}
