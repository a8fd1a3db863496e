import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { findProgram } from './enclosure.ts';

const run = promisify(execFile);

/**
 * How a workspace is connected: by a veth pair (as root), by pasta (as an ordinary user), or through the machine's own
 * network.
 */
export type NetworkKind = 'veth' | 'pasta' | 'shared';

export interface Network {
  kind: NetworkKind;
  /** False: the requested kind does not work here. */
  available: boolean;
  /** For the status and the log, to follow "… namespaces; ". */
  sentence: string;
  /** Why the better kinds are not used. */
  refused: string[];
  tools: NetworkTools;
}

export interface NetworkTools {
  ip: string | null;
  nft: string | null;
  iptables: string | null;
  nsenter: string | null;
  pasta: string | null;
  unshare: string | null;
  setpriv: string | null;
}

const script = join(import.meta.dirname, 'network.sh');
const table = 'cde_workspaces';
/** Prefix of interfaces on the machine's side, followed by a number; names are limited to 15 characters. */
const interfaces = '"cdew*"';
/**
 * Rarely used private networks, each for `subnets` workspaces. The first one that the machine has no route to is used.
 */
const pools = ['10.213', '10.87', '172.29', '100.92'] as const;
const subnets = 64 * 256;
/** Where pasta answers DNS, whatever the machine's resolver is. */
const pastaResolver = '169.254.1.1';

/** `net` of /proc/net/route, whose addresses are hexadecimal in the machine's byte order (little-endian wherever we run). */
function routedNetworks(text: string): { device: string; network: number; mask: number }[] {
  const number = (hex: string) => Buffer.from(hex, 'hex').readUInt32LE();
  return text
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .map((fields) => ({ device: fields[0]!, network: number(fields[1]!), mask: number(fields[7]!) }));
}

/** The first pool that no route of the machine overlaps, ignoring those of other workspaces. */
export function choosePool(routes: string): string | null {
  const taken = routedNetworks(routes).filter(({ device, mask }) => mask !== 0 && !device.startsWith('cdew'));
  for (const pool of pools) {
    const [one, two] = pool.split('.').map(Number) as [number, number];
    const base = ((one << 24) | (two << 16)) >>> 0;
    const overlaps = taken.some(({ network, mask }) => {
      const wider = (mask & 0xffff0000) >>> 0;
      return (network & wider) >>> 0 === (base & wider) >>> 0;
    });
    if (!overlaps) return pool;
  }
  return null;
}

export interface Resolvers {
  /** Resolvers that other network namespaces can reach. */
  servers: string[];
  /** The machine's loopback resolver, if it has no other. */
  loopback: string | null;
  /** search and options lines. */
  others: string[];
}

/**
 * The resolvers for workspaces, from the machine's resolv.conf and the file in which systemd-resolved lists its
 * upstreams.
 */
export function findResolvers(conf: string, upstream: string | null): Resolvers {
  const of = (text: string) =>
    text.split('\n').flatMap((line) => /^\s*nameserver\s+([\d.]+)\s*$/.exec(line)?.[1] ?? []);
  const isLoopback = (address: string) => address.startsWith('127.');
  const others = conf.split('\n').filter((line) => /^\s*(search|domain|options)\s/.test(line));
  const own = of(conf);
  const servers = own.filter((address) => !isLoopback(address));
  if (servers.length > 0) return { servers, loopback: null, others };
  const behind = upstream === null ? [] : of(upstream).filter((address) => !isLoopback(address));
  return { servers: behind, loopback: behind.length === 0 ? (own[0] ?? null) : null, others };
}

const readOr = (path: string) => {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
};

const resolversHere = (): Resolvers =>
  findResolvers(readOr('/etc/resolv.conf') ?? '', readOr('/run/systemd/resolve/resolv.conf'));

/**
 * The rules for all workspaces of this machine and of all its servers. None of them is specific to a workspace, so none
 * is left behind. A workspace can reach other machines, but not this one, other workspaces, or a cloud's metadata
 * service. This machine can open connections to workspaces; others cannot.
 */
export function rulesFor(resolvers: Resolvers): string {
  const sources = pools.map((pool) => `${pool}.0.0/16`).join(', ');
  const dns = resolvers.servers.length > 0 ? `ip daddr { ${resolvers.servers.join(', ')} } ` : '';
  const stub = resolvers.loopback
    ? {
        nat: `chain prerouting_nat { type nat hook prerouting priority dstnat; policy accept;
    iifname ${interfaces} fib daddr type local meta l4proto { tcp, udp } th dport 53 dnat ip to ${resolvers.loopback}
  }`,
        input: `iifname ${interfaces} ct status dnat meta l4proto { tcp, udp } th dport 53 accept`,
      }
    : { nat: '', input: '' };
  const body = `  chain prerouting { type filter hook prerouting priority raw; policy accept;
    iifname ${interfaces} fib saddr . iif oif missing drop
    iifname ${interfaces} ip daddr 127.0.0.0/8 drop
  }
  chain input { type filter hook input priority filter - 10; policy accept;
    iifname ${interfaces} ct state established,related accept
    ${stub.input}
    iifname ${interfaces} reject with icmpx type admin-prohibited
  }
  chain forward { type filter hook forward priority filter - 10; policy accept;
    iifname ${interfaces} oifname ${interfaces} reject with icmpx type admin-prohibited
    iifname ${interfaces} meta nfproto ipv6 drop
    ${dns ? `iifname ${interfaces} ${dns}meta l4proto { tcp, udp } th dport 53 accept` : ''}
    iifname ${interfaces} ip daddr { 169.254.0.0/16, 100.100.100.200, 168.63.129.16, 192.0.0.192 } reject with icmpx type admin-prohibited
    oifname ${interfaces} ct state established,related accept
    oifname ${interfaces} drop
  }
  ${stub.nat}
  chain postrouting { type nat hook postrouting priority srcnat; policy accept;
    ip saddr { ${sources} } oifname != ${interfaces} masquerade
  }
`;
  return body.replace(/\n\s*\n/g, '\n');
}

const marker = (rules: string) => `rules_${createHash('sha256').update(rules).digest('hex').slice(0, 16)}`;

/** Installs the rules atomically if they are missing or different. */
async function ensureRules(tools: NetworkTools): Promise<void> {
  const rules = rulesFor(resolversHere());
  const name = marker(rules);
  const there = await run(tools.nft!, ['list', 'chain', 'inet', table, name]).then(
    () => true,
    () => false,
  );
  if (!there)
    await feed(
      tools.nft!,
      ['-f', '-'],
      `table inet ${table}\ndelete table inet ${table}\ntable inet ${table} {\n  chain ${name} { }\n${rules}}\n`,
    );
  // Another base chain (Docker's, ufw's) may drop packets that ours accepts, so they are accepted there too. Forbidden
  // packets were rejected earlier.
  if (!tools.iptables) return;
  const forward = await run(tools.iptables, ['-w', '5', '-S', 'FORWARD']).then(
    ({ stdout }) => stdout,
    () => '-P FORWARD ACCEPT',
  );
  if (forward.trim() === '-P FORWARD ACCEPT') return;
  for (const way of ['-i', '-o']) {
    if (forward.includes(`-A FORWARD ${way} cdew+ -j ACCEPT`)) continue;
    await run(tools.iptables, ['-w', '5', '-I', 'FORWARD', way, 'cdew+', '-j', 'ACCEPT']);
  }
}

function feed(program: string, args: string[], input: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['pipe', 'ignore', 'pipe'] });
    let said = '';
    child.stderr.on('data', (chunk) => {
      said += chunk;
    });
    child.once('error', reject);
    child.once('close', (code) => (code === 0 ? resolve() : reject(new Error(said.trim().split('\n')[0]))));
    child.stdin.on('error', () => {});
    child.stdin.end(input);
  });
}

const forwarding = '/proc/sys/net/ipv4/ip_forward';

/** Sets up everything except the interface pair, which each start creates. */
async function prepareMachine(tools: NetworkTools): Promise<void> {
  await ensureRules(tools);
  if (readFileSync(forwarding, 'utf8').trim() === '0') writeFileSync(forwarding, '1\n');
}

export interface NetworkPlan {
  /** Prefix of the launch command. */
  prefix: string[];
  /** The content of /etc/resolv.conf inside; null for the machine's. */
  resolv: string | null;
  /** Contains the word GATEWAY, which the script replaces by the address. */
  resolvTemplate: string | null;
  /** HOST:PORT that leads to the agent's listener. */
  directForward: string | null;
}

const shared: NetworkPlan = { prefix: [], resolv: null, resolvTemplate: null, directForward: null };

function resolvText(resolvers: Resolvers, servers: string[]): string {
  return `${[...servers.map((address) => `nameserver ${address}`), ...resolvers.others].join('\n')}\n`;
}

/** Plans the network of one start. `hint`: any number that differs between workspaces. */
export async function planNetwork(network: Network, hint: number, namespaced: boolean): Promise<NetworkPlan> {
  const { tools } = network;
  if (network.kind === 'shared' || !namespaced) return shared;
  const dying = [tools.setpriv!, '--pdeathsig', 'KILL'];
  const resolvers = resolversHere();
  if (network.kind === 'veth') {
    const pool = choosePool(readOr('/proc/net/route') ?? '');
    if (!pool) throw new Error(`the machine has routes to all of ${pools.join(', ')}`);
    const words = ['veth', String(hint % subnets), String(subnets), pool, resolvers.loopback ? '1' : '0'];
    const servers = resolvers.loopback ? ['GATEWAY'] : resolvers.servers;
    const text = resolvText(resolvers, servers);
    return {
      prefix: [...dying, tools.unshare!, '--net', '--', '/bin/sh', script, ...words],
      resolv: text,
      resolvTemplate: resolvers.loopback ? text : null,
      directForward: null,
    };
  }
  const directForward = `127.0.0.1:${await freePort()}`;
  const [address, port] = directForward.split(':') as [string, string];
  // Loopback addresses are not forwarded in either direction, except for that port.
  const ways = ['-t', `${address}/${port}`, '-u', 'none', '-T', 'none', '-U', 'none', '--no-map-gw'];
  return {
    prefix: [
      ...dying,
      tools.pasta!,
      ...['--quiet', '--foreground', '--config-net', ...ways, '--dns-forward', pastaResolver, '--'],
      ...dying,
      ...['/bin/sh', script, 'pasta'],
    ],
    resolv: resolvText(resolvers, [pastaResolver]),
    resolvTemplate: null,
    directForward,
  };
}

/**
 * A port that is free right now. pasta binds it a few milliseconds later; if another process is faster, the start fails
 * and is retried.
 */
function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

/** Tries to run a program in such a network. Returns the reason if that fails. */
async function attempt(kind: 'veth' | 'pasta', tools: NetworkTools): Promise<string | null> {
  const needed = kind === 'veth' ? (['nft', 'nsenter', 'unshare'] as const) : (['pasta'] as const);
  for (const name of [...needed, 'ip', 'setpriv'] as const)
    if (!tools[name]) return `${name} is not installed`;
  try {
    if (kind === 'veth') await prepareMachine(tools);
    const network = { kind, available: true, sentence: '', refused: [], tools } satisfies Network;
    const { prefix } = await planNetwork(network, subnets - 1 - (process.pid % 1000), true);
    const words = [
      ...prefix,
      '/bin/sh',
      '-c',
      'ip -4 route show default && ip -4 address show lo | grep -q 127',
    ];
    // The data directory is not needed: the script only writes if names are resolved by a stub.
    await run(words[0]!, words.slice(1), {
      cwd: '/tmp',
      env: { PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin:/usr/bin:/bin` },
      timeout: 10_000,
      killSignal: 'SIGKILL',
    });
    return null;
  } catch (error) {
    const { stderr, message } = error as { stderr?: string; message: string };
    return stderr?.trim().split('\n').at(-1) || message.split('\n')[0]!;
  }
}

/**
 * Started by root, pasta switches to nobody, loses access to the namespace, and busy-loops after its parent was killed.
 */
const onlyForUsers = 'is for servers that do not run as root';

/** The best kind that works here, or the requested one, for which `available` may be false. */
export async function detectNetwork(
  asked: 'auto' | NetworkKind,
  namespaced: boolean,
  find: (program: string) => string | null = findProgram,
): Promise<Network> {
  const tools = Object.fromEntries(
    (['ip', 'nft', 'iptables', 'nsenter', 'pasta', 'unshare', 'setpriv'] as const).map((name) => [
      name,
      namespaced ? find(name) : null,
    ]),
  ) as unknown as NetworkTools;
  const refused: string[] = [];
  const root = process.getuid?.() === 0;
  for (const kind of ['veth', 'pasta'] as const) {
    if (!namespaced || (asked !== 'auto' && asked !== kind)) continue;
    const reason =
      kind === 'veth' && !root
        ? 'takes root'
        : kind === 'pasta' && root
          ? onlyForUsers
          : await attempt(kind, tools);
    if (reason === null) {
      const way = kind === 'veth' ? 'a veth pair' : 'pasta';
      const sentence = `It has its own network (${way}): it reaches the internet, but neither this machine nor other workspaces.`;
      return { kind, available: true, sentence, refused, tools };
    }
    refused.push(`${kind}: ${reason}`);
  }
  const kind = asked === 'auto' ? 'shared' : asked;
  return {
    kind,
    available: kind === 'shared',
    sentence:
      'Its network is shared with the machine: workspaces can reach the ports of this machine and of each other.',
    refused,
    tools,
  };
}

/** Repairs what others may have undone, such as a restarted firewall or a Docker that was started later. */
export async function repairNetwork(network: Network): Promise<void> {
  if (network.kind === 'veth') await prepareMachine(network.tools);
}

/** The machine's resolvers may change while workspaces run. Their file is updated in place, because it is mounted. */
export function refreshResolv(path: string): void {
  const resolvers = resolversHere();
  if (resolvers.loopback || resolvers.servers.length === 0) return;
  const text = resolvText(resolvers, resolvers.servers);
  const now = readOr(path);
  if (now !== null && now !== text) writeFileSync(path, text);
}
