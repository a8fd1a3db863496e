/**
 * How often the diagnosis names the injected cause: real clients, satellites, agents and servers in network namespaces, with faults
 * chosen by a seed. Usage: npm run bench:attribution -- [--seed N] [--cases N] [--cause CAUSE] [--json]. Needs Linux, root, ip, iptables,
 * python3, nsenter, unshare and control groups of version 1. Results and what they mean: attribution.md.
 */
import { spawn } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { findIncidents } from '@cde/diagnosis/incidents.ts';
import { type Cause, causes, makeCases } from './cases.ts';
import { judge, type Played, score, shuffled } from './score.ts';
import { print } from './table.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    // Of each cause.
    cases: { type: 'string', default: '10' },
    cause: { type: 'string', multiple: true },
    // Side by side. Each has a server, a database, a satellite, agents and a laptop of its own.
    lanes: { type: 'string', default: '2' },
    // In all, after which nothing may have been reported.
    quiet: { type: 'string', default: '0' },
    // A file to which everything that was played is appended, a line of JSON for each case.
    save: { type: 'string' },
    // Such a file: the engine runs again over what was recorded, and nothing is played.
    replay: { type: 'string', multiple: true },
    json: { type: 'boolean', default: false },
  },
});
const seed = Number(values.seed);
for (const cause of values.cause ?? [])
  if (!causes.includes(cause as Cause)) throw new Error(`${cause} is no cause: ${causes.join(', ')}`);

const note = (text: string) => process.stderr.write(`${text}\n`);

const groups = `/sys/fs/cgroup/cpu/cde-bench-${process.pid}`;
const failed: string[] = [];
const all = values.replay ? values.replay.flatMap(replay) : await playAll();
const judged = all.filter(({ injected }) => injected.length > 0).map((played) => judge(played));
const result = score(seed, judged);
if (values.json) console.log(JSON.stringify(result));
else
  print({
    result,
    judged,
    all,
    failed,
    chance: score(
      seed,
      all.filter(({ injected }) => injected.length > 0).map((played) => judge(played, shuffled(seed))),
    ),
  });

/** Other programs of this machine must not be what is measured: the lanes come first. */
function makeGroup(number: number): string {
  const path = join(groups, String(number));
  mkdirSync(path, { recursive: true });
  writeFileSync(join(groups, 'cpu.shares'), '4096');
  return path;
}

function removeGroups(folder: string): void {
  for (const entry of existsSync(folder) ? readdirSync(folder, { withFileTypes: true }) : [])
    if (entry.isDirectory()) removeGroups(join(folder, entry.name));
  try {
    rmdirSync(folder);
  } catch {
    // A process in it still ends, or there is none.
  }
}

function replay(path: string): Played[] {
  return readFileSync(path, 'utf8')
    .trim()
    .split('\n')
    .map((line) => {
      const played = JSON.parse(line) as Played;
      const finals = played.evidence.flatMap((recorded) => {
        const { names, ...evidence } = recorded;
        return findIncidents({ ...evidence, nameOf: (url: string) => names[url] ?? url });
      });
      return {
        ...played,
        finals: finals
          .filter(({ from }) => from >= played.begunAt && from <= played.endedAt)
          .map((each) => ({ ...each, seenAt: played.endedAt })),
      };
    })
    .filter(({ case: one }) => !values.cause || values.cause.includes(one.title));
}

async function playAll(): Promise<Played[]> {
  const waiting = makeCases(seed, {
    each: Number(values.cases),
    only: values.cause as Cause[] | undefined,
    quietMinutes: Number(values.quiet),
  });
  const total = waiting.length;
  const done: Played[] = [];
  const lanes = Math.min(Number(values.lanes), total);
  const lane = (number: number) =>
    new Promise<void>((resolve) => {
      const file = fileURLToPath(new URL('lane.ts', import.meta.url));
      // All of it ends with its first process, and is in a control group of its own.
      const words = [
        ...['unshare', '--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc', 'sh', '-c'],
        'echo 0 > "$0/cgroup.procs" && mount --bind "$0" /sys/fs/cgroup/cpu && "$@"; exit $?',
        ...[makeGroup(number), process.execPath, file, String(number)],
      ];
      const child = spawn(words[0]!, words.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] });
      const next = () => {
        const one = waiting.shift();
        if (one) child.stdin.write(`${JSON.stringify(one)}\n`);
        else child.stdin.end();
      };
      createInterface(child.stdout).on('line', (line) => {
        const said = JSON.parse(line) as {
          ready?: true;
          next?: true;
          played?: Played;
          failed?: string;
          error?: string;
        };
        if (said.ready || said.next) next();
        if (said.failed) {
          failed.push(`${said.failed}: ${said.error}`);
          note(`failed ${said.failed}: ${said.error}`);
        }
        if (said.played) {
          done.push(said.played);
          if (values.save) appendFileSync(values.save, `${JSON.stringify(said.played)}\n`);
          note(progress(said.played, done.length, total));
        }
      });
      child.once('exit', (code) => {
        if (code !== 0) note(`lane ${number} ended with ${code}`);
        resolve();
      });
      process.once('SIGINT', () => child.kill('SIGKILL'));
    });
  await Promise.all(
    Array.from({ length: lanes }, async (_, number) => {
      // Servers that start all at once take the CPU from each other.
      await new Promise((resolve) => setTimeout(resolve, number * 6_000));
      await lane(number);
    }),
  );
  removeGroups(groups);
  return done;
}

function progress(played: Played, count: number, total: number): string {
  const { case: one, echo } = played;
  const head = `${count}/${total} ${one.id} (${one.variation})`;
  if (played.injected.length === 0) return `${head}: ${played.finals.length} incidents`;
  const { named, isCauseRight, secondsToName, falseBlame } = judge(played);
  return `${head}: ${isCauseRight ? 'right' : `named ${named}`}, ${secondsToName?.toFixed(1) ?? '-'} s, echo ${echo.duringMs} ms${falseBlame.length > 0 ? `, false blame: ${falseBlame.map(({ summary }) => summary).join(' | ')}` : ''}`;
}
