import type { Action } from '@cde/api/actions.ts';
import type { ParameterValues, TemplateContent } from '@cde/api/templates.ts';

/** What a provider is asked to keep, rendered from the template version: no expression is left in it. */
export interface WorkspaceSpec {
  workspaceId: string;
  /** The developer's username: the user name inside, and the home's `/home/NAME`. */
  owner: string;
  name: string;
  template: RenderedTemplate;
  /** Only of a workspace that takes over a kept home: the deleted one it was of, and what the provider remembered of that. */
  restore?: { workspaceId: string; state: ProviderState };
}

/** A template file after its expressions were evaluated. */
export type RenderedTemplate = Omit<TemplateContent, 'parameters'> & { parameters: ParameterValues };

/** How an agent is started: the provider passes these variables to the agent's process, and nothing else of ours. */
export interface AgentLaunch {
  buildId: string;
  serverUrl: string;
  token: string;
}

/** What a provider remembers of a workspace; kept in PostgreSQL between moves, so it must be plain JSON. */
export type ProviderState = Record<string, unknown>;

/**
 * The result of one move. A move never waits for something slow: it starts the slow thing, says
 * `again` with a delay (ms) and is called again. Every move may be repeated, and may find the work of
 * a killed replica half done. `message` of `again`: what it waits for, in words for the developer; it is shown
 * as the workspace's reason until the next move.
 */
export type StepResult =
  | {
      kind: 'done';
      state: ProviderState;
      message?: string;
      isolation?: string;
      home?: string;
      location?: KubernetesLocation;
    }
  | {
      kind: 'pending';
      state: ProviderState;
      retryAfterMs: number;
      message?: string;
      location?: KubernetesLocation;
    }
  | { kind: 'failed'; state: ProviderState; error: ProviderError };

/** Where a workspace lies, for people: of the kubernetes provider its cluster and namespace. */
export interface KubernetesLocation {
  cluster: string;
  namespace: string;
}

/** Why a move failed, in words for the developer. `user`: the template or the developer can cure it. */
export interface ProviderError {
  code: string;
  message: string;
  detail?: string;
  hint?: string;
  actions?: Action[];
  fault: 'user' | 'system';
}

/**
 * What is there now. `absent`: nothing, with the reason where one is known. `exited`: compute of ours that has
 * ended, with the reason as far as it is known: a sentence without its dot where something was done to it (`The node
 * n1 was drained`), else what may follow a colon (`out of memory`). `unknown`: it cannot be seen at the moment (the cluster is away);
 * nothing is concluded from that. `note`: what is amiss although it runs, in one sentence.
 */
export type Observation =
  | { kind: 'absent'; reason?: string }
  | { kind: 'running'; buildId: string; warning?: string }
  | { kind: 'unknown'; reason: string }
  | { kind: 'exited'; buildId: string; reason: string };

export interface StepContext {
  /** Adds a line to the build's log. */
  log(text: string, level?: 'info' | 'warn' | 'error'): void;
}

/** Turns a template version into compute. All calls are safe to repeat and safe to lose. */
export interface Provider {
  name: string;
  /** Toward an agent of `launch.buildId` running; compute of an older build is stopped first. */
  start(
    spec: WorkspaceSpec,
    launch: AgentLaunch,
    state: ProviderState,
    context: StepContext,
  ): Promise<StepResult>;
  /** Toward no compute. The home stays. */
  stop(workspaceId: string, state: ProviderState, context: StepContext): Promise<StepResult>;
  /** Toward nothing left. `keep`: the home is set aside until `purgeHomes` finds it too old. */
  remove(
    workspaceId: string,
    state: ProviderState,
    home: 'keep' | 'discard',
    context: StepContext,
  ): Promise<StepResult>;
  /** Looks, and repairs what has drifted from `spec` where that does not need a build; may be called often. */
  observe(workspaceId: string, state: ProviderState, spec?: WorkspaceSpec): Promise<Observation>;
  /**
   * Deletes homes set aside longer ago than `graceMs` (0: all), but none of which `claimed` says that a workspace
   * is about to take it over; returns the workspace ids. With `only`, that home alone.
   */
  purgeHomes(
    graceMs: number,
    now: Date,
    options?: { claimed?: ReadonlySet<string>; only?: string },
  ): Promise<string[]>;
  /** How large a home is that was kept (`20Gi`), as the state of its workspace tells; null: it was not measured. */
  homeSize?(state: ProviderState): string | null;
  /** Calls back, soon after, when something of a workspace has changed: its compute ended, got on, or drifted. */
  onChange(listener: (workspaceId: string) => void): void;
  close(): Promise<void>;
}
