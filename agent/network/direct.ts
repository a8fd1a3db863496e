import type { AgentManifest } from '@cde/api/agent.ts';
import { formatAddress } from '@cde/api/host-port.ts';
import type { Log } from '@cde/tunnel/log.ts';
import { ownAddresses } from '@cde/tunnel/network/addresses.ts';
import { type DirectListener, listenDirect } from '@cde/tunnel/paths/direct-tcp.ts';
import type { Path } from '@cde/tunnel/pipe/path.ts';

export interface DirectEndpoint {
  /** Starts or stops listening as the manifest says. Calls `onChange` if the addresses change. */
  apply(direct: AgentManifest['direct']): Promise<void>;
  /** HOST:PORT of each address at which clients can reach this agent; empty while it is not listening. */
  addresses(): string[];
  close(): void;
}

const isLoopback = (host: string) => /^(localhost|127\.[\d.]+|\[?::1\]?)$/.test(host);

/**
 * The network that the agent runs in. `whole`: the network of a machine, container or pod that belongs to the workspace.
 * `own`: a network namespace on the server's machine, with `directForward` (HOST:PORT on the machine) forwarded to the
 * same port inside. `shared`: the network of a machine that also runs other workspaces and the server.
 */
export type Network =
  | { kind: 'whole' | 'shared' }
  | {
      kind: 'own';
      directForward: string | undefined;
    };

/** True if the agent reaches the server on loopback; then it listens only there. */
export const isLoopbackOnly = ({
  serverUrl,
  network,
}: Pick<DirectEndpointOptions, 'serverUrl' | 'network'>): boolean =>
  network?.kind !== 'own' && serverUrl.split(/[\s,]+/).every((url) => isLoopback(hostOf(url)));

export interface DirectEndpointOptions {
  /** A loopback URL means that all clients are on this machine. */
  serverUrl: string;
  network?: Network;
  onPath: (path: Path, proved: () => void) => void;
  onChange: () => void;
  /** Called with the reason if it cannot listen. */
  onFailure: (message: string) => void;
  log: Log;
}

/**
 * The agent's listener for clients that can reach its machine without a satellite. If the server is only reachable on this
 * machine, so is the listener.
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
      // The previous agent may still hold the port; the next manifest tries again.
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
        // Machines without IPv6 have no `::`.
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
