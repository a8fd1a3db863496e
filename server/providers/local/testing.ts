import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { silentLog } from '@cde/tunnel/log.ts';
import { until } from '../../../tests/kit/until.ts';
import type { ProviderState, StepResult, WorkspaceSpec } from '../provider.ts';
import { detectIsolation, type Level } from './isolation.ts';
import { argvOf } from './processes.ts';
import { type LocalProviderOptions, makeLocalProvider } from './provider.ts';

/**
 * Fake agents, which do to their provider what a real one does. Each writes `started PID` into its home, so that tests
 * can count them.
 */
const begin = "require('fs').appendFileSync(process.env.HOME + '/started', process.pid + '\\n');";
export const fakeAgents = {
  /** Exits when asked to. */
  polite: `${begin} process.on('SIGTERM', () => process.exit(0)); setInterval(() => {}, 1e6);`,
  /** Ignores requests to exit, and has children, one of them detached from its session and parent. */
  stubborn: `${begin} process.on('SIGTERM', () => {});
    const { spawn } = require('child_process');
    spawn('sleep', ['777000']); spawn('sh', ['-c', 'setsid sleep 777001 & exit'], { detached: true });
    setInterval(() => {}, 1e6);`,
  /** Exits at once and prints why. */
  failing: `${begin} console.error('no such server: it said no'); process.exit(3);`,
  /** Records what it reads from stdin. */
  curious: `${begin} process.on('SIGTERM', () => process.exit(0)); setInterval(() => {}, 1e6);
    require('fs').writeFileSync(process.env.HOME + '/stdin', require('fs').readFileSync(0));`,
  /** Allocates memory until it is killed. */
  greedy: `${begin} const all = []; setInterval(() => all.push(Buffer.alloc(8 << 20, 1)), 1);`,
  /** Prints a lot. */
  loud: `${begin} process.on('SIGTERM', () => process.exit(0)); const line = 'x'.repeat(99) + '\\n';
    let left = 60000; const say = () => { if (left-- > 0) process.stdout.write(line, say); }; say(); setInterval(() => {}, 1e6);`,
  /** Runs the shell scripts that a test puts into its home, one by one: \`ask-N\` → \`answer-N\`. */
  obedient: `${begin} process.on('SIGTERM', () => process.exit(0)); const fs = require('fs'); let n = 0;
    setInterval(() => { const ask = process.env.HOME + '/ask-' + n; if (!fs.existsSync(ask)) return; const mine = n++;
      const { stdout, stderr, status } = require('child_process').spawnSync('sh', ['-c', fs.readFileSync(ask, 'utf8')], { encoding: 'utf8' });
      fs.writeFileSync(process.env.HOME + '/answer.new', JSON.stringify({ status, out: stdout + stderr }));
      fs.renameSync(process.env.HOME + '/answer.new', process.env.HOME + '/answer-' + mine); }, 5);`,
};
type FakeAgent = keyof typeof fakeAgents;

export const isRoot = process.getuid?.() === 0;

/** Repeats a move until it is done or has failed, like the reconciler. */
export async function drive<Done>(
  step: (state: ProviderState) => Promise<StepResult<Done>>,
  state: ProviderState = {},
): Promise<Exclude<StepResult<Done>, { kind: 'pending' }>> {
  for (let turn = 0; turn < 2000; turn++) {
    const result = await step(state);
    if (result.kind !== 'pending') return result as Exclude<StepResult<Done>, { kind: 'pending' }>;
    // Serialized like in the database.
    state = JSON.parse(JSON.stringify(result.state));
    await delay(Math.min(result.retryAfterMs, 50));
  }
  throw new Error('the step never ends');
}

export function makeSpec(workspaceId: string, local: WorkspaceSpec['template']['local'] = {}): WorkspaceSpec {
  return {
    workspaceId,
    owner: 'ada',
    name: 'hello',
    template: {
      name: 'test',
      provider: 'local',
      parameters: {},
      home: {},
      env: {},
      local,
    } as WorkspaceSpec['template'],
  };
}

export const launchOf = (buildId: string) => ({
  buildId,
  serverUrl: 'http://127.0.0.1:1',
  token: `token-of-${buildId}`,
});

/** The host pids of processes whose command line contains all `words`. */
function processesWith(...words: string[]): number[] {
  return readdirSync('/proc').flatMap((name) => {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) return [];
    try {
      const line = readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ');
      return line && words.every((word) => line.includes(word)) ? [Number(name)] : [];
    } catch {
      return [];
    }
  });
}

/** A data directory with providers; `close` kills every process started below it. */
export function makeScene(overrides: { dataDir?: string } = {}) {
  const own = mkdtempSync(join(tmpdir(), 'cde-local-'));
  const dataDir = overrides.dataDir ?? own;
  const name = basename(own);
  const skeleton = join(own, 'skeleton');
  mkdirSync(skeleton);
  const providers: ReturnType<typeof makeLocalProvider>[] = [];
  const lines: string[] = [];
  const scripts = new Map<string, number>();
  const home = (workspaceId: string) => join(dataDir, 'homes', workspaceId);

  /** The pids of supervisors below this data directory. */
  const supervisors = () => processesWith('supervisor.sh launch', dataDir);

  return {
    dataDir,
    skeleton,
    lines,
    context: { log: (text: string) => void lines.push(text) },
    supervisors,
    /** All processes of this scene, recognized by its name or the marker `tag`. */
    provider(agent: FakeAgent, options: Partial<LocalProviderOptions> & { tag?: string } = {}) {
      const { tag = name, ...rest } = options;
      const provider = makeLocalProvider({
        dataDir,
        agent: { command: [process.execPath, '-e', fakeAgents[agent], tag], readOnlyPaths: [] },
        log: silentLog,
        cgroup: name,
        skeleton,
        ...rest,
      });
      providers.push(provider);
      return provider;
    },
    tag: name,
    /** The host pids of agents: their argv starts with Node, unlike that of their wrappers. */
    agents: () =>
      processesWith(name).filter((pid) => argvOf(pid)?.[0] === process.execPath && argvOf(pid)?.[1] === '-e'),
    home,
    /** Runs a shell script in a workspace with the scripted agent. */
    async inside(script: string, workspaceId = 'w1'): Promise<{ status: number; out: string }> {
      const n = scripts.get(workspaceId) ?? 0;
      scripts.set(workspaceId, n + 1);
      // Atomically: the agent runs whatever it finds, and an empty script succeeds.
      const draft = join(home(workspaceId), `draft-${n}`);
      writeFileSync(draft, script);
      chmodSync(draft, 0o644);
      renameSync(draft, join(home(workspaceId), `ask-${n}`));
      const answer = join(home(workspaceId), `answer-${n}`);
      await until(() => existsSync(answer), `the answer to ${script}`);
      return JSON.parse(readFileSync(answer, 'utf8'));
    },
    /** Call before another agent starts, which counts from 0 again. */
    forgetScripts(workspaceId: string) {
      scripts.delete(workspaceId);
      for (const name of readdirSync(home(workspaceId)))
        if (/^(ask|answer)-/.test(name)) rmSync(join(home(workspaceId), name));
    },
    async close() {
      await Promise.all(providers.map((provider) => provider.close()));
      // The trees first, because without isolation they would survive their supervisor.
      for (let turn = 0; turn < 400; turn++) {
        const left = [...new Set([...processesWith(name), ...supervisors()])];
        if (left.length === 0) break;
        for (const pid of left) {
          try {
            process.kill(pid, 'SIGKILL');
          } catch {
            // It has exited meanwhile.
          }
        }
        await delay(5);
      }
      for (const controller of ['memory', 'cpu', 'pids'])
        removeGroups(`/sys/fs/cgroup/${controller}/${name}`);
      rmSync(own, { recursive: true, force: true });
    },
  };
}

function removeGroups(folder: string): void {
  try {
    for (const entry of readdirSync(folder, { withFileTypes: true }))
      if (entry.isDirectory()) removeGroups(join(folder, entry.name));
    rmdirSync(folder);
  } catch {
    // It does not exist.
  }
}

/** Whether a test can mount a small file system on this machine. */
export function mountSmallDisk(folder: string, size: string): () => void {
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size},mode=0755`, 'tmpfs', folder]);
  return () => void execFileSync('umount', ['-l', folder]);
}

/** The isolation levels that this machine permits. Tests of other levels are skipped. */
export async function levelsHere(): Promise<Level[]> {
  const folder = mkdtempSync(join(tmpdir(), 'cde-levels-'));
  try {
    const found = await Promise.all(
      (['bwrap', 'unshare'] as const).map(async (level) => ({
        level,
        works: (await detectIsolation(level, join(folder, level))).available,
      })),
    );
    return [...found.filter(({ works }) => works).map(({ level }) => level), 'none'];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
