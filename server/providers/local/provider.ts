import { join } from 'node:path';
import type { Log } from '@cde/tunnel/log.ts';
import { makeBackgroundWork } from '../background.ts';
import type { Provider, ProviderState, StepResult } from '../provider.ts';
import { findProgram } from './enclosure.ts';
import { toProviderError } from './errors.ts';
import { earlyExitMs, explainExit } from './exit-reasons.ts';
import { makeHomes } from './homes.ts';
import { detectIsolation, type Isolation, type Level } from './isolation.ts';
import type { AgentProgram } from './launch.ts';
import { findControllers } from './limits.ts';
import type { NetworkKind } from './network.ts';
import { makeNetworkRepair } from './network-repair.ts';
import { listLocalNodes } from './nodes.ts';
import { makeObjects } from './objects.ts';
import { type LocalParts, readState } from './parts.ts';
import { makeRuns } from './runs.ts';
import { makeStart } from './start.ts';
import { remove, stop } from './stop.ts';
import { makeUids } from './uids.ts';
import { makeWatcher } from './watcher.ts';

export interface LocalProviderOptions {
  /** Absolute path of the folder with the homes and run directories. */
  dataDir: string;
  agent: AgentProgram;
  isolation?: 'auto' | Level;
  network?: 'auto' | NetworkKind;
  log: Log;
  /** How long an agent may take to exit. */
  graceMs?: number;
  /** The name of our folder below the cgroup mounts; null: use no cgroups. */
  cgroup?: string | null;
  /** The source of the dotfiles in new homes. */
  skeleton?: string;
  now?: () => Date;
}

/**
 * Workspaces on this machine. Each is a process tree with its own home, isolated as well as the machine permits;
 * `isolation()` describes how well.
 */
export function makeLocalProvider(
  options: LocalProviderOptions,
): Provider & { isolation(): Promise<Isolation> } {
  const { dataDir, agent, log, graceMs = 10_000, now = () => new Date() } = options;
  const homes = makeHomes({ directory: join(dataDir, 'homes'), skeleton: options.skeleton });
  const uids = makeUids({ directory: join(dataDir, 'uids') });
  const runs = makeRuns({ directory: join(dataDir, 'run') });
  const watcher = makeWatcher({ runs, log });
  const background = makeBackgroundWork();
  let detected: Promise<Isolation> | null = null;

  /** Detected once. If that fails, for example on a full disk, the next call tries again. */
  function isolation(): Promise<Isolation> {
    detected ??= detectIsolation(options.isolation ?? 'auto', dataDir, findProgram, options.network).catch(
      (error) => {
        detected = null;
        throw error;
      },
    );
    return detected;
  }
  isolation().then(
    ({ level, refused, network, sentence }) => {
      const fields = { isolation: level, network: network.kind, refused: [...refused, ...network.refused] };
      if (network.kind === 'shared') log.warn(fields, `local provider: ${sentence}`);
      else log.info(fields, `local provider: ${sentence}`);
    },
    (error) => log.warn({ err: error }, 'local provider: the isolation could not be detected yet'),
  );

  const networkRepair = makeNetworkRepair({ isolation, runs, watcher, log });
  const parts: LocalParts = {
    dataDir,
    agent,
    graceMs,
    log,
    now,
    homes,
    uids,
    runs,
    watcher,
    networkRepair,
    background,
    controllers:
      process.platform === 'linux' && options.cgroup !== null ? findControllers(options.cgroup ?? 'cde') : {},
    isolation,
    stopRequests: new Map(),
  };
  const start = makeStart(parts);

  /** An error of the machine fails the step and leaves the state unchanged. */
  async function guard<Done>(
    doing: string,
    state: ProviderState,
    step: () => Promise<StepResult<Done>>,
  ): Promise<StepResult<Done>> {
    try {
      return await step();
    } catch (thrown) {
      const error = toProviderError(thrown, doing);
      log.warn({ err: thrown }, `local provider: ${error.message}`);
      return { kind: 'failed', state, error };
    }
  }

  return {
    name: 'local',
    isolation,
    start: (spec, launch, state, context) =>
      guard('starting the workspace', state, async () => {
        const from = spec.restore?.workspaceId;
        const isOther = from !== undefined && from !== spec.workspaceId;
        // Recorded before the home changes hands, so that a removal can give it back.
        if (isOther && readState(state).restoring === undefined)
          return { kind: 'pending', state: { ...state, restoring: from }, retryAfterMs: 0 };
        const result = await start(spec, launch, state, context);
        return result.kind === 'done' ? result : stillRestoring(state, result);
      }),
    stop: (workspaceId, state, context) =>
      guard('stopping the workspace', state, async () =>
        stillRestoring(state, await stop(parts, workspaceId, state, context)),
      ),
    remove: (workspaceId, state, home, context) =>
      guard('removing the workspace', state, async () => {
        const result = await remove(parts, workspaceId, state, home, context);
        return result.kind === 'done' ? result : stillRestoring(state, result);
      }),
    async observe(workspaceId, state) {
      const found = await runs.inspect(workspaceId, state);
      if (found.kind === 'none')
        return {
          kind: 'gone',
          cause: 'missing',
          message: 'The processes of the workspace are gone; the machine may have been restarted.',
        };
      if (found.kind === 'alive') {
        if (!watcher.isWatched(workspaceId) && !parts.stopRequests.has(workspaceId))
          watcher.watch(workspaceId, found.compute);
        return { kind: 'running' };
      }
      const lastLines = found.exit && found.exit.livedMs < earlyExitMs ? runs.tail(workspaceId) : '';
      const { cause, text } = explainExit(runs, workspaceId, found.compute, found.exit);
      return { kind: 'gone', cause, message: `The agent ${text}${lastLines ? `: ${lastLines}` : '.'}` };
    },
    describeHome(state) {
      const { home } = readState(state);
      return home === undefined ? {} : { directory: home };
    },
    async purgeHomes(selection) {
      const purged = await homes.purge(selection);
      for (const workspaceId of purged)
        if (!(await homes.exists(workspaceId))) await uids.release(workspaceId);
      return { purged, incomplete: false };
    },
    objects: makeObjects(parts),
    onChange: watcher.onExit,
    nodes: async () => listLocalNodes(),
    async close() {
      watcher.close();
      networkRepair.close();
      await Promise.allSettled([detected, background.settled()]);
    },
  };
}

/** The result with what the state before it says about a restore. */
function stillRestoring<Result extends StepResult<unknown>>(before: ProviderState, result: Result): Result {
  const { restoring } = readState(before);
  return restoring === undefined ? result : { ...result, state: { ...result.state, restoring } };
}
