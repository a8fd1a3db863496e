import type { Action } from '@cde/api/actions.ts';
import type { Node, UnseenNodes } from '@cde/api/nodes.ts';
import type { TemplateContent } from '@cde/api/template-file.ts';
import type { ParameterValues } from '@cde/api/template-parameters.ts';

/**
 * The contract between the server and what turns a template version into compute. The server decides what should
 * happen and when; a provider takes one step towards it and says how far it got. Everything the server decides by is
 * data (`kind`, `cause`, `code`, `fault`): sentences are for people only.
 *
 * conformance/ holds the suite that every provider passes.
 */

/** What the compute of a workspace should be: rendered from the template version, with no expression left in it. */
export interface WorkspaceSpec {
  workspaceId: string;
  /** The developer's username: the user name inside the workspace. */
  owner: string;
  name: string;
  template: RenderedTemplate;
  /** The retained home that this workspace takes over: the deleted workspace it belonged to, and that one's last state. */
  restore?: { workspaceId: string; state: ProviderState };
}

/** A template file whose expressions were evaluated. */
export type RenderedTemplate = Omit<TemplateContent, 'parameters'> & { parameters: ParameterValues };

/** What an agent needs to reach the server. A provider passes it to the agent's process and keeps none of it. */
export interface AgentLaunch {
  buildId: string;
  /** Comma separated, best first. */
  serverUrl: string;
  token: string;
}

/**
 * What a provider remembers of one workspace between steps, and how it finds its own objects again. Private to the
 * provider: the server stores it as JSON and hands it back. A step returns a new state and leaves the given one
 * unchanged.
 */
export type ProviderState = Readonly<Record<string, unknown>>;

/**
 * How far one step got. A step never waits for anything slow: it starts the slow operation and returns `pending`, and
 * the server calls again after `retryAfterMs`, or earlier when `onChange` fires. Any step can be repeated, and can find
 * the work of a server that was killed half-way.
 *
 * `pending.message` says what the step waits for, in one sentence that is shown as the workspace's reason.
 */
export type StepResult<Done = unknown> =
  | ({ kind: 'done'; state: ProviderState } & Done)
  | {
      kind: 'pending';
      state: ProviderState;
      retryAfterMs: number;
      message?: string;
      location?: KubernetesLocation;
    }
  | { kind: 'failed'; state: ProviderState; error: ProviderError };

/** What a finished start says about the compute, for people. */
export interface Started {
  /** What separates the workspace from its machine, and which limits hold, in one or two sentences. */
  isolation?: string;
  location?: KubernetesLocation;
}

export interface Removed {
  /** True if the home was retained: it can be restored until it is purged. */
  homeRetained: boolean;
}

/** The cluster and namespace of a workspace; API, CLI and dashboard show them. */
export interface KubernetesLocation {
  cluster: string;
  namespace: string;
  /** Of a running workspace: the pool of its node, if that has one. */
  nodePool?: string | null;
}

/**
 * Why a step failed: what happened, why, what to do. `code` is stable and listed in docs/errors.md. `fault` is `user` if
 * the developer or the template's author can fix it.
 */
export interface ProviderError {
  code: string;
  message: string;
  detail?: string;
  hint?: string;
  actions?: Action[];
  fault: 'user' | 'system';
}

/**
 * Why compute is gone, and what that says about starting it again. `workload`: it ended by itself and is likely to do
 * so again. `platform`: something outside ended it, which says nothing about the workspace.
 */
export const endCauses = {
  /** The agent's process exited or was killed by a signal. */
  'agent-exited': 'workload',
  /** The workspace used more memory than its limit. */
  'out-of-memory': 'workload',
  /** The agent's process could not be started. */
  'agent-not-started': 'workload',
  /** It ended, and nothing says how. */
  unknown: 'workload',
  /** The platform ended it for using too much, or to free memory or disk on the node. */
  evicted: 'platform',
  /** It made room for other work: a priority class, a spot instance that was reclaimed. */
  preempted: 'platform',
  'node-drained': 'platform',
  /** The node stopped answering, or was removed. */
  'node-lost': 'platform',
  /** The node, virtual machine or host was shut down or restarted. */
  'node-restarted': 'platform',
  /** The node had no room for it, or refused it. */
  'node-refused': 'platform',
  /** The platform ended it for another reason. */
  disrupted: 'platform',
  /** Someone deleted, stopped or scaled it down without cde. */
  removed: 'platform',
  /** It is not there, and nothing says why. Also before the first start and after a stop. */
  missing: 'platform',
} as const satisfies Record<string, 'workload' | 'platform'>;
export type EndCause = keyof typeof endCauses;

/**
 * What exists now. Each message is one sentence for people, with its full stop.
 * `running.warning`: what is wrong although the workspace runs. `unknown`: the platform cannot be asked at the moment,
 * so nothing may be concluded.
 */
export type Observation =
  | { kind: 'running'; warning?: string }
  | { kind: 'gone'; cause: EndCause; message: string }
  | { kind: 'unknown'; message: string };

/** What the server needs to know of a home, which only the provider's state tells. */
export interface HomeDescription {
  /** The absolute path inside the workspace; absent: `/home/OWNER`. */
  directory?: string;
  /** The size of its volume, as Kubernetes writes quantities (`20Gi`); absent: it has no volume of its own. */
  size?: string;
}

/** Which retained homes to delete. */
export interface PurgeSelection {
  /** Homes retained before this moment; absent: of any age. */
  retainedBefore?: Date;
  /** This workspace's home alone. */
  only?: string;
  /** Homes that a workspace is about to take over, or that are retained for longer: never deleted. */
  except?: ReadonlySet<string>;
}

export interface PurgeResult {
  /** The workspaces whose homes were deleted. */
  purged: string[];
  /** True if a part of the storage could not be reached, so that a selected home can still exist. */
  incomplete: boolean;
}

/** Something with the labels of this installation on a provider's platform. */
export interface PlatformObject {
  /**
   * `compute`: what runs a workspace. `network` and `volume`: what was made for one, or for several, without data of a
   * developer. `home`: the only one of its data.
   */
  kind: 'compute' | 'network' | 'volume' | 'home';
  /** Unique among those of its kind. */
  name: string;
  /** The workspace that it belongs to; null: none, and the provider no longer uses it. */
  workspaceId: string | null;
  createdAt: Date | null;
  /** Of a home: the username and workspace that it was created for, if the platform says so. */
  owner?: string;
  workspaceName?: string;
}

/** What the sweep of orphans needs from a provider. It rejects if the platform does not answer. */
export interface PlatformObjects {
  list(): Promise<PlatformObject[]>;
  /**
   * Removes one that `list` returned, and what runs in it. False if it has changed since, or is still in use.
   * Never removes a home.
   */
  remove(object: PlatformObject): Promise<boolean>;
  /**
   * Makes a home that `list` returned the retained home of this workspace, retained since then. The result is the state
   * for `restore`; null if there is no such home.
   */
  adopt(home: PlatformObject, workspaceId: string, retainedAt: Date): Promise<ProviderState | null>;
}

export interface StepContext {
  /** Adds a line to the build's log. */
  log(text: string, level?: 'info' | 'warn' | 'error'): void;
}

/** A machine that the provider's compute runs on. */
export interface ProviderNode extends Omit<Node, 'provider' | 'workspaces'> {
  /** The workspaces with compute on it; null: all running ones of this provider. */
  workspaceIds: readonly string[] | null;
}

export interface ProviderNodes {
  nodes: ProviderNode[];
  unseen: UnseenNodes[];
}

/** Something that happened to the machine of a workspace, for the log of its build. */
export interface NodeIncident {
  workspaceId: string;
  /** Identifies it: each replica reports it, and it is recorded once. */
  key: string;
  at: Date;
  level: 'info' | 'warn';
  text: string;
}

/**
 * Turns template versions into compute. Every call can be repeated, can come from another replica than the last one, and
 * can be cut short by the death of the server.
 */
export interface Provider {
  /** As templates name it. */
  readonly name: string;
  /**
   * One step towards an agent of `launch.buildId` running on the workspace's home. Compute of another build is stopped
   * first. A home that existed and is lost is a failure, never replaced by an empty one.
   */
  start(
    spec: WorkspaceSpec,
    launch: AgentLaunch,
    state: ProviderState,
    context: StepContext,
  ): Promise<StepResult<Started>>;
  /** One step towards no compute. The home stays. */
  stop(workspaceId: string, state: ProviderState, context: StepContext): Promise<StepResult>;
  /**
   * One step towards nothing left but, with `keep`, the home, which is retained until `purgeHomes` deletes it. The
   * final state is what `restore` gets. If no start with `restore` is done yet, the home stays a retained home of the workspace
   * that it belonged to, whatever `home` says.
   */
  remove(
    workspaceId: string,
    state: ProviderState,
    home: 'keep' | 'discard',
    context: StepContext,
  ): Promise<StepResult<Removed>>;
  /**
   * Reports what exists, and repairs drift from `spec` that needs no build. Cheap: it is called after each change and
   * at regular intervals.
   */
  observe(workspaceId: string, state: ProviderState, spec?: WorkspaceSpec): Promise<Observation>;
  describeHome(state: ProviderState): HomeDescription;
  purgeHomes(selection: PurgeSelection): Promise<PurgeResult>;
  /** Absent: its orphans are found elsewhere (server/kubernetes/orphans). */
  readonly objects?: PlatformObjects;
  /** Calls `listener` soon after something about a workspace changed: its compute ended, made progress or drifted. */
  onChange(listener: (workspaceId: string) => void): void;
  /** The machines, from what the provider watches or remembers: a list of a thousand must not cost a call for each. */
  nodes?(): Promise<ProviderNodes>;
  /** Calls `listener` when a node of running workspaces no longer is as their templates need it, or is again. */
  onNodeIncident?(listener: (incident: NodeIncident) => void): void;
  /** Releases what this process holds. Compute keeps running. */
  close(): Promise<void>;
}
