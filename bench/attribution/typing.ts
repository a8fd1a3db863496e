import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Case } from './cases.ts';
import { type Rig, retry } from './rig.ts';

const keyEveryMs = 250;
/** Each typed word comes back by itself, also in the middle of other output. */
const echoing = {
  plain: 'cat',
  bulk: '(while :; do head -c 120000 /dev/urandom | base64 -w 0; sleep 0.1; done) & cat',
};

/** `cde ssh` on the laptop, with a person who types; measures when the echo of each key arrives. */
export async function makeTyping(rig: Rig, one: Case) {
  const folder = join(rig.folder, `laptop-${one.id}-${Date.now()}`);
  await mkdir(folder, { recursive: true });
  const [program, ...words] = [
    ...rig.on(rig.hosts.laptop),
    ...[rig.node, rig.cde, 'ssh', one.satellite, one.udp ? '--path=auto' : '--path=relay'],
    // Tells of the path.
    ...(one.udp ? ['--verbose'] : []),
    '--',
    echoing[one.variation === 'bulk' ? 'bulk' : 'plain'],
  ];
  const child = spawn(program!, words, {
    cwd: folder,
    env: {
      ...rig.env,
      HOME: folder,
      CDE_CONFIG_DIR: join(folder, 'config'),
      CDE_URL: rig.url,
      CDE_TOKEN: rig.dev,
    },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const ended = once(child, 'exit');
  let errors = '';
  let text = '';
  child.stderr.setEncoding('utf8').on('data', (more) => {
    errors += more;
  });
  child.stdin.on('error', () => {});
  const sent = new Map<number, number>();
  const echoes: { at: number; ms: number }[] = [];
  child.stdout.setEncoding('latin1').on('data', (more: string) => {
    text += more;
    for (const [, number] of text.matchAll(/~(\d+)~/g)) {
      const at = sent.get(Number(number));
      if (at === undefined) continue;
      sent.delete(Number(number));
      echoes.push({ at, ms: Date.now() - at });
    }
    text = text.slice(-24);
  });
  let count = 0;
  const timer = setInterval(() => {
    sent.set(++count, Date.now());
    child.stdin.write(`~${count}~\n`);
  }, keyEveryMs);
  const isOver = () => child.exitCode !== null || child.signalCode !== null;
  const typing = {
    ended,
    /** The slowest echo of keys typed before and during the faults, for the record. */
    summary(injected: { from: number; to: number }[]) {
      const from = Math.min(...injected.map((each) => each.from));
      const to = Math.max(...injected.map((each) => each.to));
      const late = [...sent.values()].map((at) => ({ at, ms: Date.now() - at }));
      const all = [...echoes, ...late].filter(({ at }) => at < to);
      const worst = (some: typeof all) => Math.round(Math.max(0, ...some.map(({ ms }) => ms)));
      return {
        beforeMs: worst(all.filter(({ at, ms }) => at + ms < from)),
        duringMs: worst(all.filter(({ at, ms }) => at + ms >= from)),
      };
    },
    async end(): Promise<void> {
      clearInterval(timer);
      child.kill('SIGKILL');
      // Among them the background process, which holds the session.
      rig.signal(rig.hosts.laptop.pids(), 'SIGCONT');
      rig.signal(rig.hosts.laptop.pids(), 'SIGKILL');
      if (!isOver()) await ended;
      await rm(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
  try {
    await retry('the first echo', async () => {
      if (isOver()) throw new Error(`cde ssh ended with ${child.exitCode}: ${errors}`);
      return echoes.length > 2 && (!one.udp || /moved.*direct-udp|direct-udp.*moved/i.test(errors));
    });
  } catch (error) {
    await typing.end();
    throw error;
  }
  await delay(2_500); // Shorter sessions are not recorded.
  return typing;
}
