import { execFileSync, spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Case, Fault } from './cases.ts';
import { type Rig, retry } from './rig.ts';

/** When a fault was in effect. */
export interface Injected {
  from: number;
  to: number;
}

type Of<C extends Fault['cause']> = Extract<Fault, { cause: C }>;
interface Scene {
  rig: Rig;
  place: Case['satellite'];
  /** Ends when the laptop's `cde ssh` does. */
  ended: Promise<unknown>;
}

const iptables = (...words: string[]) => execFileSync('iptables', words, { stdio: 'pipe' });

/** Between two moments, with what is done at each. */
async function lasting(ms: number, begin: () => unknown, end: () => unknown): Promise<Injected> {
  const from = Date.now();
  await begin();
  await delay(ms);
  await end();
  return { from, to: Date.now() };
}

const injectors: { [C in Fault['cause']]: (fault: Of<C>, scene: Scene) => Promise<Injected> } = {
  'client-slept': async ({ ms, radio, otherNetwork }, { rig: { hosts, signal } }) => {
    const pids = hosts.laptop.pids();
    const from = Date.now();
    signal(pids, 'SIGSTOP');
    if (radio === 'off') await hosts.laptop.set({ down: true });
    await delay(ms);
    if (otherNetwork) hosts.laptop.changeAddress();
    signal(pids, 'SIGCONT');
    const to = Date.now();
    if (radio === 'on') return { from, to };
    // The radio needs a moment.
    await delay(800);
    await hosts.laptop.set({ down: false });
    return { from, to };
  },
  'client-overloaded': ({ ms, cpuPercent }, { rig }) => {
    let stop = () => {};
    return lasting(
      ms,
      () => {
        stop = rig.starve(rig.hosts.laptop.pids(), cpuPercent);
      },
      () => stop(),
    );
  },
  'client-network-changed': ({ withoutMs }, { rig: { hosts } }) =>
    lasting(
      withoutMs,
      () => hosts.laptop.set({ down: true }),
      async () => {
        hosts.laptop.changeAddress();
        await hosts.laptop.set({ down: false });
      },
    ),
  'client-network-lossy': ({ ms, how, amount }, { rig: { hosts } }) => {
    const wire = {
      loss: { loss: amount },
      delay: { extraMs: amount },
      jitter: { jitterMs: amount },
      outage: { down: true },
    }[how];
    return lasting(
      ms,
      () => hosts.laptop.set(wire),
      () => hosts.laptop.set({ loss: 0, extraMs: 0, jitterMs: 0, down: false }),
    );
  },
  'udp-blocked': ({ ms }) =>
    lasting(
      ms,
      () => iptables('-I', 'FORWARD', '-p', 'udp', '-j', 'DROP'),
      () => iptables('-D', 'FORWARD', '-p', 'udp', '-j', 'DROP'),
    ),
  // Prepared before the session, because it concerns connections from their beginning.
  'proxy-interference': ({ lifeMs, lives }) =>
    lasting(
      lifeMs * lives + 10_000,
      () => {},
      () => {},
    ),
  'satellite-restarted': async ({ how, downMs }, { rig }) => {
    if (how === 'stopped')
      return lasting(
        downMs,
        () => rig.endServer('SIGTERM'),
        () => rig.startServer(),
      );
    return lasting(
      downMs,
      async () => {
        if (how === 'crashed') await rig.hosts.satellite.set({ down: true });
        await rig.endSatellite('SIGKILL');
      },
      async () => {
        await rig.hosts.satellite.set({ down: false });
        await rig.startSatellite();
      },
    );
  },
  'satellite-overloaded': ({ ms, cpuPercent }, { rig, place }) => {
    let stop = () => {};
    const pids = () => (place === 'own' ? rig.satellitePids() : rig.serverPids());
    return lasting(
      ms,
      () => {
        stop = rig.starve(pids(), cpuPercent);
      },
      () => stop(),
    );
  },
  'satellite-agent-network': ({ ms, how, amount }, { rig: { hosts } }) => {
    const wire = { loss: { loss: amount }, delay: { extraMs: amount }, outage: { down: true } }[how];
    return lasting(
      ms,
      () => hosts.server.set({ only: hosts.satellite.address, ...wire }),
      () => hosts.server.set({ only: null, loss: 0, extraMs: 0, down: false }),
    );
  },
  'node-lost': async ({ downMs }, { rig }) => {
    const boot = '/proc/sys/kernel/random/boot_id';
    const other = join(rig.folder, `boot-${Date.now()}`);
    const from = Date.now();
    // What a power cut leaves: no process, and another boot.
    await rig.endServer('SIGKILL');
    for (const id of Object.values(rig.ids)) {
      const record = Object.assign(
        {},
        ...readFileSync(join(rig.env.CDE_DATA_DIR!, 'run', id, 'record'), 'utf8')
          .trim()
          .split('\n')
          .map((line) => JSON.parse(line)),
      );
      rig.signal([record.pid, record.main].filter(Number.isInteger), 'SIGKILL');
    }
    for (const place of ['own', 'embedded'] as const)
      await retry('the agents are gone', async () => (await rig.agentPids(place)).length === 0);
    writeFileSync(other, `${crypto.randomUUID()}\n`);
    execFileSync('mount', ['--bind', other, boot]);
    await delay(downMs);
    await rig.startServer();
    return { from, to: Date.now() };
  },
  'agent-restarted': async (_fault, { rig, place }) => {
    const from = Date.now();
    rig.signal(await rig.agentPids(place), 'SIGKILL');
    return { from, to: Date.now() };
  },
  'workspace-cpu-starved': ({ ms, cpuPercent }, { rig, place }) => {
    let stop = () => {};
    return lasting(
      ms,
      () => {
        stop = rig.starve(rig.workspaceGroup(place, 'cpu'), cpuPercent);
      },
      () => stop(),
    );
  },
  'workspace-out-of-memory': async (_fault, { rig, place, ended }) => {
    const group = rig.workspaceGroup(place, 'memory');
    const used = Number(readFileSync(join(group, 'memory.usage_in_bytes'), 'utf8'));
    const limit = String(used + 80e6);
    for (const file of ['memory.limit_in_bytes', 'memory.memsw.limit_in_bytes']) {
      try {
        writeFileSync(join(group, file), limit);
      } catch {
        // Without swap accounting the second file does not exist.
      }
    }
    // The kernel may take the agent as well as the program that grows.
    for (const pid of await rig.agentPids(place)) writeFileSync(`/proc/${pid}/oom_score_adj`, '1000');
    const from = Date.now();
    const grow = 'all = []\nwhile True: all.append(bytearray(1 << 20))';
    const hog = spawn('sh', ['-c', `echo $$ > ${group}/cgroup.procs; exec python3 -c "$1"`, 'sh', grow], {
      stdio: 'ignore',
    });
    await Promise.race([ended, delay(20_000)]);
    hog.kill('SIGKILL');
    const to = Date.now();
    // Of a workspace that survived it; a new one has new groups.
    for (const file of ['memory.memsw.limit_in_bytes', 'memory.limit_in_bytes']) {
      try {
        writeFileSync(join(group, file), String(2 ** 30));
      } catch {
        // The group is gone.
      }
    }
    return { from, to };
  },
  'workspace-stopped': async ({ how, by }, { rig, place }) => {
    const from = Date.now();
    await rig.call(
      by === 'admin' ? rig.admin : rig.dev,
      'POST',
      `/api/v1/workspaces/${rig.ids[place]}/${how}`,
      {},
    );
    return { from, to: Date.now() };
  },
  'server-unreachable': ({ ms }, { rig }) =>
    lasting(
      ms,
      () => rig.signal(rig.serverPids(), 'SIGSTOP'),
      () => rig.signal(rig.serverPids(), 'SIGCONT'),
    ),
  'ticket-expired': async (_fault, { rig, ended }) => {
    const from = Date.now();
    await rig.call(rig.admin, 'PATCH', '/api/v1/users/dev', { status: 'suspended' });
    await Promise.race([ended, delay(60_000)]);
    const to = Date.now();
    await delay(2_000);
    await rig.call(rig.admin, 'PATCH', '/api/v1/users/dev', { status: 'active' });
    return { from, to };
  },
};

export const inject = (fault: Fault, scene: Scene): Promise<Injected> =>
  (injectors[fault.cause] as (fault: Fault, scene: Scene) => Promise<Injected>)(fault, scene);

/** What must be there before the session begins; returns what removes it. */
export async function prepare(fault: Fault, rig: Rig): Promise<() => void> {
  if (fault.cause !== 'proxy-interference') return () => {};
  const { satellite } = rig.hosts;
  const sockets = new Set<Socket>();
  const proxy = createServer((near) => {
    const far = connect({ host: satellite.address, port: rig.ports.satellite });
    near.pipe(far).pipe(near);
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on('error', () => {}).on('close', () => void sockets.delete(socket));
    }
    setTimeout(() => {
      if (fault.how === 'reset') {
        for (const socket of [near, far]) socket.resetAndDestroy();
        return;
      }
      near.unpipe(far).pause();
      far.unpipe(near).pause();
    }, fault.lifeMs);
  });
  await new Promise<void>((resolve) => proxy.listen(0, resolve));
  const { port } = proxy.address() as AddressInfo;
  const rule = `PREROUTING -i ${rig.hosts.laptop.prefix.at(-1)} -p tcp -d ${satellite.address} --dport ${rig.ports.satellite} -j REDIRECT --to-ports ${port}`;
  iptables('-t', 'nat', '-A', ...rule.split(' '));
  return () => {
    iptables('-t', 'nat', '-F');
    proxy.close();
    for (const socket of sockets) socket.destroy();
  };
}
