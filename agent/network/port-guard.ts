import { lookup } from 'node:dns/promises';
import type { Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { TunnelError } from '@cde/tunnel/errors.ts';
import type { Target } from '@cde/tunnel/streams/targets.ts';
import { hasOwnListener } from './ports.ts';

/**
 * On a shared network, programs of other workspaces and of the machine listen on the same addresses. The guard restricts
 * sessions to ports that a process of this workspace listens on.
 */
export interface PortGuard {
  /** Rejects with `target-forbidden` if the socket is connected to another program on this machine. */
  checkSocket(socket: Pick<Socket, 'remoteAddress' | 'remotePort'>): Promise<void>;
  /** The same for datagrams, to be called before sending. */
  checkDatagrams(target: Extract<Target, { kind: 'udp' }>): Promise<void>;
}

export const noPortGuard: PortGuard = { checkSocket: async () => {}, checkDatagrams: async () => {} };

/** `serverUrls`: the server's ports are never allowed, even if it runs as the workspace's user. */
export function makePortGuard(options: {
  shared: boolean;
  serverUrls: string;
  root?: string;
  addresses?: () => string[];
}): PortGuard {
  if (!options.shared) return noPortGuard;
  const serverPorts = new Set(
    options.serverUrls
      .split(',')
      .filter((url) => URL.canParse(url))
      .map((url) => new URL(url))
      .map(({ port, protocol }) => Number(port) || (protocol === 'https:' ? 443 : 80)),
  );
  const addresses = options.addresses ?? ownAddresses;

  async function check(protocol: 'tcp' | 'udp', host: string, port: number): Promise<void> {
    const address = host.replace(/^::ffff:(?=\d+\.)/, '').replace(/%.*$/, '');
    const here =
      /^127\./.test(address) || ['0.0.0.0', '::', '::1'].includes(address) || addresses().includes(address);
    if (!here) return;
    if (!serverPorts.has(port) && (await hasOwnListener(protocol, port, options.root))) return;
    throw new TunnelError(
      'target-forbidden',
      `port ${port} belongs to no program of this workspace, which shares its network with the server's machine`,
    );
  }

  return {
    checkSocket: ({ remoteAddress = '', remotePort = 0 }) => check('tcp', remoteAddress, remotePort),
    async checkDatagrams({ host, port }) {
      const found = await lookup(host, { all: true }).catch(() => []);
      for (const { address } of found) await check('udp', address, port);
    },
  };
}

const ownAddresses = () =>
  Object.values(networkInterfaces()).flatMap((each) => (each ?? []).map(({ address }) => address));
