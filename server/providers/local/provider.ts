import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '@cde/tunnel/log.ts';
import type {
  AgentLaunch,
  Observation,
  Provider,
  ProviderState,
  Removed,
  Started,
  StepContext,
  StepResult,
  WorkspaceSpec,
} from '../provider.ts';
import { findProgram } from './enclosure.ts';
import { ProviderFailure, toProviderError } from './errors.ts';
import { earlyExitFailure, earlyExitMs, explainExit, runIdOf } from './exit-reasons.ts';
import { makeHomes } from './homes.ts';
import { detectIsolation, type Isolation, type Level } from './isolation.ts';
import { type AgentProgram, homeInside, prepareLaunch } from './launch.ts';
import { findControllers, planLimits } from './limits.ts';
import { type NetworkKind, refreshResolv, repairNetwork } from './network.ts';
import { makeRuns, type RunRecord, type RunState, supervisorCodes } from './runs.ts';
import { makeUids } from './uids.ts';

export interface LocalProviderOptions {
  /** Holds the homes and the run directories; absolute. */
  dataDir: string;
  agent: AgentProgram;
  isolation?: 'auto' | Level;
  network?: 'auto' | NetworkKind;
  log: Log;
  /** How long an agent may take to end when asked to, in ms. */
  graceMs?: number;
  /** The folder of our cgroups. */
  cgroup?: string;
  /** Where new homes take their dotfiles from. */
  skeleton?: string;
  now?: () => Date;
}

/** How often agents that are no children of this process are looked at, in ms. */
const pollMs = 1_000;
/** How often what the workspaces' network needs of the machine is looked at, in ms. */
const keepEveryMs = 30_000;
/** How long a move may stay with something that usually takes milliseconds. */
const patienceMs = 200;

/** What the provider keeps in its state besides the compute's own fields. */
interface Marks {
  /** Where the home is inside the workspace. */
  home?: string;
  /** The run that was asked to end, and when (epoch ms). */
  asked?: { life: string; at: number };
  /** The run whose early exit was reported already. */
  reportedExit?: string;
}

/**
 * Workspaces on this machine: each a process tree of its own, with its own home, as well separated
 * from the machine as that permits. `isolation()` says how well.
 */
export function makeLocalProvider(
  options: LocalProviderOptions,
): Provider & { isolation(): Promise<Isolation> } {
  const { dataDir, agent, log, graceMs = 10_000, now = () => new Date() } = options;
  const homes = makeHomes({ directory: join(dataDir, 'homes'), skeleton: options.skeleton });
  const uids = makeUids({ directory: join(dataDir, 'uids') });
  const runs = makeRuns({ directory: join(dataDir, 'run') });
  const controllers = process.platform === 'linux' ? findControllers(options.cgroup ?? 'cde') : {};
  const listeners = new Set<(workspaceId: string) => void>();
  const watched = new Map<string, RunRecord>();
  const asked = new Map<string, NonNullable<Marks['asked']>>();
  const jobs = new Map<string, Promise<unknown>>();
  /** workspace → the supervisor started here whose agent was not yet seen running. */
  const launched = new Map<string, number>();
  let detecting: Promise<Isolation> | null = null;
  let closed = false;

  /** Tried once; a trial that could not be made (a full disk) is made again the next time. */
  function isolation(): Promise<Isolation> {
    detecting ??= detectIsolation(options.isolation ?? 'auto', dataDir, findProgram, options.network).catch(
      (error) => {
        detecting = null;
        throw error;
      },
    );
    return detecting;
  }
  isolation().then(
    ({ level, refused, network, sentence }) => {
      const fields = { isolation: level, network: network.kind, refused: [...refused, ...network.refused] };
      if (network.kind === 'shared') log.warn(fields, `local provider: ${sentence}`);
      else log.info(fields, `local provider: ${sentence}`);
    },
    (error) => log.warn({ err: error }, 'local provider: the isolation could not be tried yet'),
  );

  function watch(workspaceId: string, compute: RunRecord): void {
    watched.set(workspaceId, compute);
  }

  async function check(workspaceId: string): Promise<void> {
    const compute = watched.get(workspaceId);
    if (!compute) return;
    const seen = await runs.inspect(workspaceId, compute);
    if (watched.get(workspaceId) !== compute || closed) return;
    if (seen.kind === 'alive') {
      // Another server may have replaced it meanwhile.
      if (runIdOf(seen.compute) !== runIdOf(compute)) watch(workspaceId, seen.compute);
      return;
    }
    watched.delete(workspaceId);
    log.info({ workspaceId, pid: compute.pid }, 'an agent ended by itself');
    for (const listener of listeners) listener(workspaceId);
  }

  const poll = setInterval(() => {
    for (const workspaceId of watched.keys())
      check(workspaceId).catch((error) =>
        log.warn({ err: error, workspaceId }, 'an agent could not be looked at'),
      );
  }, pollMs);
  poll.unref();

  /** What other programs of the machine may undo: its firewall's rules, its resolvers. */
  let keptAt = -keepEveryMs;
  async function keep(): Promise<void> {
    const found = await isolation();
    if (closed || found.network.kind === 'shared') return;
    await repairNetwork(found.network);
    keptAt = performance.now();
    if (found.network.kind === 'veth')
      for (const workspaceId of watched.keys()) refreshResolv(join(runs.folder(workspaceId), 'resolv.conf'));
  }
  const keeping = setInterval(() => {
    if (watched.size > 0)
      keep().catch((error) => log.warn({ err: error }, "local provider: the workspaces' network"));
  }, keepEveryMs);
  keeping.unref();

  // Those that an earlier server left running.
  for (const workspaceId of runs.all()) {
    runs.inspect(workspaceId, null).then(
      (seen) =>
        seen.kind === 'alive' && !watched.has(workspaceId) && !closed && watch(workspaceId, seen.compute),
      () => {},
    );
  }

  /** The result of a job if it is ready soon; null while it goes on, by the same key in a later move. */
  async function soon<T>(key: string, job: () => Promise<T>): Promise<{ value: T } | null> {
    let running = jobs.get(key) as Promise<T> | undefined;
    if (!running) {
      running = job();
      running.catch(() => {});
      jobs.set(key, running);
    }
    const late = Symbol();
    const patience = new AbortController();
    const first = await Promise.race([
      running.then((value) => ({ value })),
      delay(patienceMs, late, { signal: patience.signal, ref: false }).catch(() => late),
    ]).catch((error) => {
      jobs.delete(key);
      throw error;
    });
    if (typeof first === 'symbol') return null;
    patience.abort();
    jobs.delete(key);
    return first;
  }

  /** One step toward the end of a living tree: asks, and after the grace kills. */
  async function end(
    workspaceId: string,
    compute: RunRecord,
    state: ProviderState,
    context: StepContext,
  ): Promise<StepResult> {
    // It does not end by itself: nobody is called back.
    watched.delete(workspaceId);
    const life = runIdOf(compute);
    const at = now().getTime();
    const marks = state as Marks;
    let ask = [marks.asked, asked.get(workspaceId)].find((mark) => mark?.life === life);
    if (!ask) {
      ask = { life, at };
      const pid = await runs.terminate(compute);
      context.log(pid ? `agent asked to stop, pid ${pid}` : 'agent stopped before it had begun');
    } else if (at - ask.at >= graceMs) {
      context.log(
        `the agent did not stop within ${graceMs / 1000} s and is killed with all its processes`,
        'warn',
      );
      await runs.kill(compute);
    }
    asked.set(workspaceId, ask);
    const age = at - ask.at;
    return {
      kind: 'pending',
      state: { ...compute, asked: ask },
      retryAfterMs: age < 100 ? 20 : age < 1000 ? 100 : 250,
    };
  }

  async function running(
    spec: WorkspaceSpec,
    compute: RunRecord,
    found: Isolation,
    words: string,
    context: StepContext,
  ): Promise<StepResult<Started>> {
    watch(spec.workspaceId, compute);
    asked.delete(spec.workspaceId);
    launched.delete(spec.workspaceId);
    const agentPid = (await runs.agentOf(compute))?.agent ?? compute.pid;
    context.log(`${words}, pid ${agentPid}`);
    const limits = planLimits(spec.workspaceId, spec.template.local, controllers);
    const holding = limits.holding.length > 0 ? ` Limits: ${limits.holding.join(', ')}.` : '';
    const missing = limits.missing.length > 0 ? ` Not limited: ${limits.missing.join(', ')}.` : '';
    const sentence =
      compute.isolation === found.level
        ? found.sentence
        : `${compute.isolation}: as when the agent was started.`;
    const level = { ...found, level: compute.isolation as Level };
    const home = homeInside(level, spec.owner, homes.path(spec.workspaceId));
    return {
      kind: 'done',
      state: { ...compute, home },
      isolation: `${sentence}${holding}${missing}`,
    };
  }

  async function start(
    spec: WorkspaceSpec,
    launch: AgentLaunch,
    state: ProviderState,
    context: StepContext,
  ): Promise<StepResult<Started>> {
    const { workspaceId } = spec;
    if (!/^[\w-]+$/.test(workspaceId) || !/^[\w.-]+$/.test(launch.buildId))
      throw new Error('an id with odd characters');
    const found = await isolation();
    if (!found.available) {
      throw new ProviderFailure({
        code: 'isolation-unavailable',
        message: `The isolation ${found.level}, which the configuration asks for, does not work on this machine.`,
        detail: found.refused.join('; '),
        hint: 'Cure that, or set CDE_ISOLATION=auto to take the best that works.',
        fault: 'system',
      });
    }
    if (!found.network.available) {
      throw new ProviderFailure({
        code: 'isolation-unavailable',
        message: `The network ${found.network.kind}, which the configuration asks for, does not work on this machine.`,
        detail: found.network.refused.join('; '),
        hint: 'Fix that, or set CDE_LOCAL_NETWORK=auto to take the best that works.',
        fault: 'system',
      });
    }
    const seen = await runs.inspect(workspaceId, state);
    if (seen.kind === 'alive') {
      if (seen.compute.buildId === launch.buildId) {
        if (!(await runs.isStarted(seen.compute)))
          return { kind: 'pending', state: { ...seen.compute }, retryAfterMs: 20 };
        const words =
          launched.get(workspaceId) === seen.compute.pid ? 'agent started' : 'agent is running already';
        return running(spec, seen.compute, found, words, context);
      }
      await runs.prepare(workspaceId);
      await runs.write(workspaceId, 'wanted', `${launch.buildId}\n`);
      return end(workspaceId, seen.compute, state, context);
    }
    if (
      seen.kind === 'ended' &&
      seen.compute.buildId === launch.buildId &&
      (state as Marks).reportedExit !== runIdOf(seen.compute)
    ) {
      if (seen.exit && seen.exit.livedMs < earlyExitMs)
        return earlyExitFailure(runs, workspaceId, seen.compute, seen.exit);
    }

    const uid = found.ownUid ? await uids.of(workspaceId) : null;
    if (spec.restore && !(await homes.restore(spec.restore.workspaceId, workspaceId)))
      throw new ProviderFailure({
        code: 'home-lost',
        message: 'The home that was to be restored is not on this machine any more.',
        detail: 'No empty home is put in its place.',
        hint: 'Restore it from a backup, or delete this workspace.',
        fault: 'system',
      });
    const home = await soon(`home ${workspaceId}`, () => homes.ensure(workspaceId, uid));
    if (!home) return { kind: 'pending', state, retryAfterMs: 500, message: 'the home gets its owner' };
    if (home.value.created) context.log(`home ${homes.path(workspaceId)} created`);
    else if (home.value.added.length > 0)
      context.log(`new skeleton files in the home: ${home.value.added.join(', ')}`);

    const limits = planLimits(workspaceId, spec.template.local, controllers);
    await runs.prepare(workspaceId);
    if (keptAt + keepEveryMs < performance.now()) await keep();
    const prepared = await prepareLaunch({
      spec,
      launch,
      agent,
      isolation: found,
      limits,
      uid,
      homePath: homes.path(workspaceId),
      dataDir,
      runs,
    });
    context.log(`isolation: ${found.sentence}`, found.level === 'none' ? 'warn' : 'info');
    if (limits.holding.length > 0) context.log(`limits: ${limits.holding.join(', ')}`);
    for (const missing of limits.missing) context.log(`not limited: ${missing}`, 'warn');
    if (spec.template.home.size)
      context.log(`home.size ${spec.template.home.size}: the local provider does not limit homes`, 'warn');

    await runs.write(workspaceId, 'wanted', `${launch.buildId}\n`);
    const child = runs.launch({
      workspaceId,
      buildId: launch.buildId,
      isolation: found.level,
      token: launch.token,
      ...prepared,
    });
    launched.set(workspaceId, child.pid);
    let code: number | null = null;
    child.ended.then((value) => {
      code = value;
      check(workspaceId).catch((error) =>
        log.warn({ err: error, workspaceId }, 'an agent could not be looked at'),
      );
    });
    // A newer life than the one seen before: the old record stays until the supervisor writes its own.
    const before = seen.kind === 'ended' ? runIdOf(seen.compute) : null;
    const deadline = performance.now() + patienceMs;
    while (performance.now() < deadline) {
      const look: RunState = await runs.inspect(workspaceId, null);
      if (
        look.kind !== 'none' &&
        runIdOf(look.compute) !== before &&
        look.compute.buildId === launch.buildId
      ) {
        if (look.kind === 'ended') return earlyExitFailure(runs, workspaceId, look.compute, look.exit);
        if (await runs.isStarted(look.compute)) {
          return running(spec, look.compute, found, 'agent started', context);
        }
      }
      if (code === supervisorCodes.limitsRefused) throw limitsRefused(workspaceId);
      if (code === supervisorCodes.cannotWrite)
        throw Object.assign(new Error(`no room in ${runs.folder(workspaceId)}`), { code: 'ENOSPC' });
      // Another server's start came first, or was overtaken: look again soon.
      if (code !== null && code !== 0) break;
      await delay(2);
    }
    return { kind: 'pending', state, retryAfterMs: 50 };
  }

  function limitsRefused(workspaceId: string): ProviderFailure {
    return new ProviderFailure({
      code: 'limits-refused',
      message: "The machine refused the template's limits.",
      detail: runs.read(workspaceId, 'launch.log')?.trim(),
      hint: "Ask for less in the template's local section, or start again if cgroups were just reorganised.",
      fault: 'system',
    });
  }

  async function stop(workspaceId: string, state: ProviderState, context: StepContext): Promise<StepResult> {
    await runs.cancelPending(workspaceId);
    const seen = await runs.inspect(workspaceId, state);
    if (seen.kind === 'alive') return end(workspaceId, seen.compute, state, context);
    watched.delete(workspaceId);
    const strays = seen.kind === 'none' || seen.compute.isolation === 'none';
    if (!(await runs.clear(workspaceId, strays))) return { kind: 'pending', state, retryAfterMs: 20 };
    asked.delete(workspaceId);
    if (seen.kind === 'ended') context.log('agent stopped');
    return { kind: 'done', state: {} };
  }

  async function remove(
    workspaceId: string,
    state: ProviderState,
    disposition: 'keep' | 'discard',
    context: StepContext,
  ): Promise<StepResult<Removed>> {
    const stopped = await stop(workspaceId, state, context);
    if (stopped.kind !== 'done') return stopped;
    const moved = await homes.retain(workspaceId, disposition === 'keep' ? 'keep' : 'doom', now());
    // A delete that was cut short after it had set the home aside kept it all the same.
    const kept = disposition === 'keep' && (moved || (await homes.isRetained(workspaceId)));
    if (moved && disposition === 'keep')
      context.log('home set aside; it is deleted when its grace period is over');
    if (disposition === 'discard') {
      if (!(await soon(`delete ${workspaceId}`, () => homes.finishDelete(workspaceId).then(() => true)))) {
        return { kind: 'pending', state: {}, retryAfterMs: 500, message: 'the home is being deleted' };
      }
      if (moved) context.log('home deleted');
    }
    await runs.discard(workspaceId);
    if (!(await homes.exists(workspaceId))) await uids.release(workspaceId);
    return { kind: 'done', state: {}, homeRetained: kept };
  }

  /** A move that fails for a reason outside comes back as a failed move, and leaves the state as it was. */
  const guarded = async <Done>(
    doing: string,
    state: ProviderState,
    step: () => Promise<StepResult<Done>>,
  ): Promise<StepResult<Done>> => {
    try {
      return await step();
    } catch (error) {
      const reason = toProviderError(error, doing);
      log.warn({ err: error }, `local provider: ${reason.message}`);
      return { kind: 'failed', state, error: reason };
    }
  };

  return {
    name: 'local',
    isolation,
    start: (spec, launch, state, context) =>
      guarded('starting the workspace', state, () => start(spec, launch, state, context)),
    stop: (workspaceId, state, context) =>
      guarded('stopping the workspace', state, () => stop(workspaceId, state, context)),
    remove: (workspaceId, state, home, context) =>
      guarded('removing the workspace', state, () => remove(workspaceId, state, home, context)),
    async observe(workspaceId, state): Promise<Observation> {
      const seen = await runs.inspect(workspaceId, state);
      if (seen.kind === 'none')
        return {
          kind: 'gone',
          cause: 'missing',
          message: 'The processes of the workspace are gone; the machine may have been restarted.',
        };
      if (seen.kind === 'alive') {
        if (!watched.has(workspaceId) && !asked.has(workspaceId)) watch(workspaceId, seen.compute);
        return { kind: 'running' };
      }
      const early = seen.exit && seen.exit.livedMs < earlyExitMs ? runs.tail(workspaceId) : '';
      const { cause, text } = explainExit(runs, workspaceId, seen.compute, seen.exit);
      return { kind: 'gone', cause, message: `The agent ${text}${early ? `: ${early}` : '.'}` };
    },
    describeHome(state) {
      const { home } = state as Marks;
      return home === undefined ? {} : { directory: home };
    },
    async purgeHomes(selection) {
      const purged = await homes.purge(selection);
      for (const workspaceId of purged)
        if (!(await homes.exists(workspaceId))) await uids.release(workspaceId);
      return { purged, incomplete: false };
    },
    onChange: (listener) => void listeners.add(listener),
    async close() {
      closed = true;
      clearInterval(poll);
      clearInterval(keeping);
      listeners.clear();
      await Promise.allSettled([detecting, ...jobs.values()]);
    },
  };
}
