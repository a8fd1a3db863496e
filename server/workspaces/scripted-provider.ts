import type {
  AgentLaunch,
  Observation,
  Provider,
  PurgeSelection,
  StepResult,
  WorkspaceSpec,
} from '../providers/provider.ts';

/**
 * A fake provider for tests of the reconciler. The test scripts its results; the real providers have their own tests.
 */
export interface ScriptedProvider extends Provider {
  /** The calls so far: `start BUILD`, `stop`, `remove keep`. */
  calls: string[];
  launches: AgentLaunch[];
  /** What was launched. */
  specs: WorkspaceSpec[];
  /** What `purgeHomes` was asked to delete. */
  purges: PurgeSelection[];
  /** The next results of start, stop and remove. The default is `done`. */
  nextMoves: Partial<StepResult>[];
  /** The result of `observe`; null: what the calls so far would leave. */
  observation: Observation | null;
  exit(workspaceId: string): void;
}

export function makeScriptedProvider(): ScriptedProvider {
  const calls: string[] = [];
  const launches: AgentLaunch[] = [];
  const specs: WorkspaceSpec[] = [];
  const purges: PurgeSelection[] = [];
  const listeners: ((workspaceId: string) => void)[] = [];
  let running: string | null = null;
  const answer = (): StepResult => ({ kind: 'done', state: {}, ...provider.nextMoves.shift() }) as StepResult;
  const provider: ScriptedProvider = {
    name: 'local',
    calls,
    launches,
    specs,
    purges,
    nextMoves: [],
    observation: null,
    exit: (workspaceId) => {
      for (const listener of listeners) listener(workspaceId);
    },
    async start(spec, launch, _state, context) {
      calls.push(`start ${launch.buildId}`);
      context.log('starting compute');
      const move = answer();
      if (move.kind === 'done') {
        running = launch.buildId;
        provider.observation = null;
        launches.push(launch);
        specs.push(spec);
      }
      return move;
    },
    async stop() {
      calls.push('stop');
      const move = answer();
      if (move.kind === 'done') running = null;
      return move;
    },
    async remove(_id, _state, home) {
      calls.push(`remove ${home}`);
      running = null;
      return { homeRetained: home === 'keep', ...answer() };
    },
    async observe() {
      return (
        provider.observation ??
        (running ? { kind: 'running' } : { kind: 'gone', cause: 'missing', message: 'There is nothing.' })
      );
    },
    describeHome: ({ home }) => (typeof home === 'string' ? { directory: home } : {}),
    purgeHomes: async (selection) => {
      purges.push(selection);
      return { purged: [], incomplete: false };
    },
    onChange: (listener) => {
      listeners.push(listener);
    },
    close: async () => {},
  };
  return provider;
}
