import { execFileSync, spawnSync } from 'node:child_process';
import { randomInt } from 'node:crypto';

/**
 * How a NAT treats UDP. `cone`: each socket behind it keeps one external port (endpoint-independent mapping), and only
 * peers that it has sent to can reply. `open`: the same, but any peer can. `symmetric`: a different port per destination
 * (endpoint-dependent mapping). `blocked`: no UDP at all.
 */
export type Nat = 'cone' | 'open' | 'symmetric' | 'blocked';

/** The network behind a NAT, with one host in it. */
export interface Home {
  /** The prefix that runs a command on the host. */
  prefix: string[];
  /** The host's own address, and its public one. */
  inside: string;
  outside: string;
  /** Whether the NAT drops UDP from now on. */
  dropUdp(drop: boolean): void;
}

/** Three networks: a public host, and two homes whose NATs have routes to it and to each other. */
export interface World {
  /** Runs a command on the public host. */
  prefix: string[];
  address: string;
  homes: [Home, Home];
  remove(): void;
}

/** Why this machine cannot simulate NATs; null if it can. */
export function whyNoWorld(): string | null {
  if (process.platform !== 'linux') return 'network namespaces need Linux';
  if (process.getuid!() !== 0) return 'network namespaces need root';
  for (const program of ['ip', 'iptables'])
    if (spawnSync(program, ['-V']).status !== 0) return `${program} is not installed`;
  const rule = 'iptables -t nat -A POSTROUTING -p udp -j MASQUERADE --random-fully';
  const trial = spawnSync('unshare', ['-n', 'sh', '-c', `ip link set lo up && ${rule}`], {
    encoding: 'utf8',
  });
  return trial.status === 0
    ? null
    : `no NAT in a network namespace: ${(trial.stderr ?? '').trim().split('\n')[0]}`;
}

const run = (program: string, ...words: string[]) => execFileSync(program, words, { stdio: 'pipe' });
const inside = (space: string) => ['ip', 'netns', 'exec', space];

export function makeNatWorld(...nats: [Nat, Nat]): World {
  // Names of links are local to their namespaces. Names of namespaces are not.
  const name = `cdenat${randomInt(1_000_000)}`;
  const hub = `${name}hub`;
  const spaces: string[] = [];
  const exec = (space: string, ...words: string[]) => run('ip', 'netns', 'exec', space, ...words);
  const add = (space: string) => {
    run('ip', 'netns', 'add', space);
    spaces.push(space);
    run('ip', '-n', space, 'link', 'set', 'lo', 'up');
    exec(space, 'sysctl', '-qw', 'net.ipv4.ip_forward=1');
  };
  const join = (
    one: string,
    oneLink: string,
    oneAt: string,
    other: string,
    otherLink: string,
    otherAt: string,
  ) => {
    run(
      'ip',
      'link',
      'add',
      oneLink,
      'netns',
      one,
      'type',
      'veth',
      'peer',
      'name',
      otherLink,
      'netns',
      other,
    );
    run('ip', '-n', one, 'addr', 'add', `${oneAt}/24`, 'dev', oneLink);
    run('ip', '-n', other, 'addr', 'add', `${otherAt}/24`, 'dev', otherLink);
    run('ip', '-n', one, 'link', 'set', oneLink, 'up');
    run('ip', '-n', other, 'link', 'set', otherLink, 'up');
  };

  function home(number: number, nat: Nat): Home {
    const [router, host] = [`${name}nat${number}`, `${name}host${number}`];
    // Reserved for documentation, so they belong to no one.
    const wide = number === 1 ? '198.51.100' : '203.0.113';
    const narrow = `192.168.${number}`;
    add(router);
    add(host);
    join(hub, `link${number}`, `${wide}.1`, router, 'wan', `${wide}.2`);
    join(router, 'lan', `${narrow}.1`, host, 'eth0', `${narrow}.2`);
    run('ip', '-n', router, 'route', 'add', 'default', 'via', `${wide}.1`);
    run('ip', '-n', host, 'route', 'add', 'default', 'via', `${narrow}.1`);
    const rule = (...words: string[]) => void exec(router, 'iptables', ...words);
    if (nat === 'symmetric')
      rule(...'-t nat -A POSTROUTING -o wan -p udp -j MASQUERADE --random-fully'.split(' '));
    rule(...'-t nat -A POSTROUTING -o wan -j MASQUERADE'.split(' '));
    if (nat === 'open')
      rule(...`-t nat -A PREROUTING -i wan -p udp -j DNAT --to-destination ${narrow}.2`.split(' '));
    // Home routers drop unsolicited traffic. If it were answered (port unreachable), Linux would consider the port in use and
    // map the inner socket to another one for that destination.
    const chains = nat === 'open' ? ['INPUT'] : ['INPUT', 'FORWARD'];
    for (const chain of chains) rule(...`-A ${chain} -i wan -m conntrack --ctstate NEW -j DROP`.split(' '));
    const dropUdp = (drop: boolean) => rule(drop ? '-I' : '-D', 'FORWARD', '-p', 'udp', '-j', 'DROP');
    if (nat === 'blocked') dropUdp(true);
    return { prefix: inside(host), inside: `${narrow}.2`, outside: `${wide}.2`, dropUdp };
  }

  const remove = () => {
    for (const space of spaces) run('ip', 'netns', 'del', space);
  };
  try {
    add(hub);
    const homes: [Home, Home] = [home(1, nats[0]), home(2, nats[1])];
    // The homes reach each other through the hub. There is no route behind their NATs.
    return { prefix: inside(hub), address: '198.51.100.1', homes, remove };
  } catch (error) {
    remove();
    throw error;
  }
}
