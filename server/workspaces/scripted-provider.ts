import type { AgentLaunch, Observation, Provider, StepResult } from '../providers/provider.ts';

/**
 * A stand-in for a provider, for tests of the reconciler alone (the real ones have tests of their own, and
 * tests/ runs everything together): its moves are what the test says.
 */
export interface ScriptedProvider extends Provider {
  /** The calls so far: `start BUILD`, `stop`, `remove keep`. */
  calls: string[];
  launches: AgentLaunch[];
  /** The next answers to start/stop/remove, before the default `done`. */
  nextMoves: Partial<StepResult>[];
  /** What `observe` says; by default what the calls would leave. */
  observation: Observation | null;
  exit(workspaceId: string): void;
}

export function makeScriptedProvider(): ScriptedProvider {
  const calls: string[] = [];
  const launches: AgentLaunch[] = [];
  const listeners: ((workspaceId: string) => void)[] = [];
  let running: string | null = null;
  const answer = (): StepResult => ({ kind: 'done', state: {}, ...provider.nextMoves.shift() }) as StepResult;
  const provider: ScriptedProvider = {
    name: 'local',
    calls,
    launches,
    nextMoves: [],
    observation: null,
    exit: (workspaceId) => {
      for (const listener of listeners) listener(workspaceId);
    },
    async start(_spec, launch, _state, context) {
      calls.push(`start ${launch.buildId}`);
      context.log('starting compute');
      const move = answer();
      if (move.kind === 'done') {
        running = launch.buildId;
        provider.observation = null;
        launches.push(launch);
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
    describeHome: () => ({}),
    purgeHomes: async () => ({ purged: [], incomplete: false }),
    onChange: (listener) => {
      listeners.push(listener);
    },
    close: async () => {},
  };
  return provider;
}
