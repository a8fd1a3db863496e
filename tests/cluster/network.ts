// The node's bridge, with the addresses of the node and the API server, and the pods' bridge, which the CNI plugin
// creates for the first pod. removeNetwork() undoes everything.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { clusterDir, nodeAddress, nodeBridge, podBridge, podRange } from './layout.ts';
import { run, succeeds } from './machine.ts';

export const cniConfigDir = join(clusterDir, 'cni');

const setting = (name: string) => `/proc/sys/${name}`;
const before = join(clusterDir, 'sysctls.json');

/** Kernel settings that the kubelet, kube-proxy and the bridges change; `down` restores the old values. */
const changedSettings = [
  'net/ipv4/ip_forward',
  'net/bridge/bridge-nf-call-iptables',
  'net/ipv4/conf/all/route_localnet',
  'vm/overcommit_memory',
  'vm/panic_on_oom',
  'kernel/panic',
  'kernel/panic_on_oops',
  'kernel/keys/root_maxkeys',
  'kernel/keys/root_maxbytes',
];

// Docker sets the policy of FORWARD to DROP; ours come before it. Bridged traffic counts as forwarded.
const forwardRules = [
  ['FORWARD', '-i', podBridge, '-j', 'ACCEPT'],
  ['FORWARD', '-o', podBridge, '-j', 'ACCEPT'],
];

/** Creates the node's bridge, the forwarding rules and the CNI configuration unless they exist. */
export function makeNetwork(): void {
  if (!existsSync(before)) {
    const values = Object.fromEntries(
      changedSettings
        .filter((name) => existsSync(setting(name)))
        .map((name) => [name, readFileSync(setting(name), 'utf8')]),
    );
    writeFileSync(before, JSON.stringify(values));
  }
  // Without it a pod's traffic to a service and back through the same bridge is not translated. It may be built in.
  succeeds('modprobe', 'br_netfilter');
  for (const name of ['net/ipv4/ip_forward', 'net/bridge/bridge-nf-call-iptables']) {
    if (existsSync(setting(name))) writeFileSync(setting(name), '1');
  }
  if (!succeeds('ip', 'link', 'show', nodeBridge)) run('ip', ['link', 'add', nodeBridge, 'type', 'bridge']);
  if (!run('ip', ['-4', 'addr', 'show', nodeBridge]).includes(`${nodeAddress}/`)) {
    run('ip', ['addr', 'add', `${nodeAddress}/24`, 'dev', nodeBridge]);
  }
  run('ip', ['link', 'set', nodeBridge, 'up']);
  for (const rule of forwardRules) {
    if (!succeeds('iptables', '-w', '-C', ...rule)) run('iptables', ['-w', '-I', ...rule]);
  }
  mkdirSync(cniConfigDir, { recursive: true });
  const cni = {
    cniVersion: '1.0.0',
    name: 'cde-test',
    plugins: [
      {
        type: 'bridge',
        bridge: podBridge,
        isGateway: true,
        ipMasq: true,
        hairpinMode: true,
        ipam: {
          type: 'host-local',
          dataDir: join(clusterDir, 'cni-addresses'),
          ranges: [[{ subnet: podRange }]],
          routes: [{ dst: '0.0.0.0/0' }],
        },
      },
      { type: 'portmap', capabilities: { portMappings: true } },
    ],
  };
  writeFileSync(join(cniConfigDir, '10-cde-test.conflist'), JSON.stringify(cni, null, 2));
}

/** Prefixes of chains that only kube-proxy, the kubelet and the CNI plugins create. */
const ownChainPattern = /^(KUBE-|CNI-)/;

function removeChains(save: string, restore: string): void {
  const shown = spawnSync(save, [], { encoding: 'utf8' });
  if (shown.status !== 0) return;
  const tables = new Map<string, { rules: string[]; chains: string[] }>();
  let undo = { rules: [] as string[], chains: [] as string[] };
  for (const line of shown.stdout.split('\n')) {
    if (line.startsWith('*')) {
      undo = { rules: [], chains: [] };
      tables.set(line, undo);
    }
    const chain = /^:(\S+)/.exec(line)?.[1];
    if (chain && ownChainPattern.test(chain)) {
      undo.rules.push(`-F ${chain}`);
      undo.chains.push(`-X ${chain}`);
    }
    const [, of, rule] = /^-A (\S+) (.*)$/.exec(line) ?? [];
    if (of && rule && !ownChainPattern.test(of) && /-j (KUBE-|CNI-)/.test(rule))
      undo.rules.push(`-D ${of} ${rule}`);
  }
  const script = [...tables].flatMap(([table, { rules, chains }]) =>
    rules.length > 0 ? [table, ...rules, ...chains, 'COMMIT'] : [],
  );
  if (script.length > 0) run(restore, ['--noflush'], { input: `${script.join('\n')}\n` });
}

/** Removes bridges, rules and chains, and restores the kernel settings. */
export function removeNetwork(): void {
  for (const bridge of [nodeBridge, podBridge]) succeeds('ip', 'link', 'del', bridge);
  for (const rule of forwardRules) while (succeeds('iptables', '-w', '-D', ...rule));
  removeChains('iptables-save', 'iptables-restore');
  removeChains('ip6tables-save', 'ip6tables-restore');
  try {
    for (const [name, value] of Object.entries(
      JSON.parse(readFileSync(before, 'utf8')) as Record<string, string>,
    )) {
      writeFileSync(setting(name), value);
    }
  } catch {
    // Never brought up, or only half removed: there is nothing to restore.
  }
}
