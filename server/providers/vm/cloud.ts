import type { KernelSection } from '@cde/api/template-cloud.ts';
import type { AgentLaunch, ProviderError, StepContext, WorkspaceSpec } from '../provider.ts';
import type { AgentExit } from './agent-exit.ts';
import type { Labels, Role } from './labels.ts';
import type { BootPlan } from './user-data.ts';

/**
 * What a cloud with virtual machines does for a provider. The rest of the provider (provider.ts, start.ts, stop.ts,
 * homes.ts, …) is the same for all clouds. No call waits for a machine, a volume or a snapshot to change its state.
 */
export interface Cloud {
  /** All machines of this installation, from one paged call. */
  machines(): Promise<Machine[]>;
  /** Begins to delete them. Those that are already deleted are fine. */
  terminate(machines: readonly Machine[]): Promise<void>;
  /** Begins to stop them. */
  halt(machines: readonly Machine[]): Promise<void>;
  /** Makes sure that the end of the machine does not delete what is attached as this device. */
  keepVolume(machine: Machine, device: string): Promise<void>;
  attach(machine: Machine, volume: Volume): Promise<void>;
  /** Begins to create a machine with the home. */
  launch(plan: LaunchPlan, context: StepContext): Promise<Begun>;
  /** Begins to boot a stopped machine for another build; null if it is not stopped. */
  restart(machine: Machine, plan: LaunchPlan): Promise<Begun | null>;
  /** Whether what a step began is finished. Rejects as a call does if the cloud refused it later. */
  isFinished?(operation: string): Promise<boolean>;
  /** The end of what it wrote to its serial console, or what is known of it. */
  console(machine: Machine): Promise<string>;
  /** Why a machine has ended. */
  explainEnd(machine: Machine, console: string): Promise<AgentExit>;
  /** What separates the workspace from others, and which limits hold. */
  describeIsolation(spec: WorkspaceSpec, machine: Machine): string;
  /** What the machines have, by `type` and zone. */
  resources(machines: readonly Machine[]): Promise<(machine: Machine) => MachineResources | null>;

  /** The zones that fit the template, sorted. */
  zones(spec: WorkspaceSpec): Promise<string[]>;
  /** Null if there is none. */
  volume(id: string): Promise<Volume | null>;
  volumes(wanted: { roles: readonly Role[]; workspace?: string; from?: string }): Promise<Volume[]>;
  /** Begins to create a volume, once for the same `key`. */
  createVolume(plan: VolumePlan): Promise<Begun>;
  /** Changes these labels. False if the volume is gone. Rejects, for now, if it has another version by now. */
  labelVolume(volume: Volume, labels: Labels): Promise<boolean>;
  /** False if it is in use. */
  deleteVolume(id: string): Promise<boolean>;
  /** Null if it grows; else why not now. */
  growVolume(volume: Volume, gibibytes: number): Promise<string | null>;
  /** How the guest finds the disk of the home. */
  bootDisk(home: Volume): BootPlan['disk'];

  snapshots(wanted: { roles: readonly Role[]; from?: string }): Promise<Snapshot[]>;
  /** Begins to create a snapshot. `key` names it: a repeated call makes no second one, if the cloud permits that. */
  createSnapshot(volume: Volume, plan: { key: string; description: string; labels: Labels }): Promise<Begun>;
  /** False if it is in use. */
  deleteSnapshot(id: string): Promise<boolean>;
  close(): void | Promise<void>;
}

/** What a cloud is called, and how it says no. Known before there is a connection. */
export interface CloudKind {
  /** As templates name the provider and its section. */
  name: 'ec2' | 'gce';
  /** In messages: `EC2`. */
  title: string;
  docs: string;
  /** What the machines are in lists of nodes that cannot be seen. */
  place: string;
  /** Codes of errors that the shared steps report. */
  codes: { noCapacity: string; refused: string };
  /** Whether a stopped machine boots with the user data of its last boot, so that it has to ask for the current one. */
  remembersUserData: boolean;
  /** The template's section; undefined if it has none. */
  sectionOf(spec: WorkspaceSpec): CloudSection | undefined;
  /** What a step waits for, in words, if a call failed only for now; null: it failed for good. */
  passing(error: unknown): string | null;
  /** Whether the cloud refused a call. */
  isRefusal(error: unknown): boolean;
  /** A refusal in words for the developer. */
  refusal(error: unknown): ProviderError;
}

/** What the sections of all clouds have. */
export interface CloudSection {
  user: string | number;
  processes?: string | number | undefined;
  allowPrivilegeEscalation: boolean;
  onStop: 'terminate' | 'keep';
  snapshots?: { keep: number } | undefined;
  kernel?: KernelSection | undefined;
  env: Record<string, unknown>;
}

export type MachineState = 'starting' | 'running' | 'stopping' | 'stopped' | 'ending' | 'gone';

export interface Machine {
  id: string;
  state: MachineState;
  zone: string;
  /** As the cloud calls this size of machine. */
  type: string;
  architecture: string | null;
  /** When it was last started. */
  startedAt: Date | null;
  volumes: { id: string; device: string; isDeletedWithMachine: boolean }[];
  labels: Labels;
  /** What the list says about why it ended. */
  reason: string;
}

export interface Volume {
  id: string;
  zone: string;
  gibibytes: number;
  state: 'creating' | 'ready' | 'failed' | 'deleting';
  /** The machine that uses it. */
  attachedTo: string | null;
  createdAt: Date | null;
  labels: Labels;
  /** Changes with the labels, where the cloud can change them on a condition. */
  version?: string | undefined;
}

export interface Snapshot {
  id: string;
  state: 'creating' | 'ready' | 'failed';
  /** How far it is, or why it failed. */
  progress: string;
  createdAt: Date | null;
  labels: Labels;
}

export interface LaunchPlan {
  spec: WorkspaceSpec;
  launch: AgentLaunch;
  home: Volume;
  boot: BootPlan;
  /** Of the machine. */
  labels: Labels;
  /** Machines of the same build that have ended, so that a repeated call is a new one. */
  earlier: readonly string[];
}

export interface VolumePlan {
  spec: WorkspaceSpec;
  key: string;
  zone: string;
  gibibytes: number;
  labels: Labels;
  snapshot?: string;
}

/** The part of a cloud that holds homes. */
export type CloudVolumes = Pick<
  Cloud,
  | 'volume'
  | 'volumes'
  | 'createVolume'
  | 'labelVolume'
  | 'deleteVolume'
  | 'growVolume'
  | 'snapshots'
  | 'createSnapshot'
  | 'deleteSnapshot'
>;

/** What `isFinished` takes, if the cloud has such a thing. */
export interface Begun {
  operation?: string;
}

export interface MachineResources {
  cpus: number | null;
  memoryBytes: number | null;
}

export const isOn = ({ state }: Machine): boolean => state === 'running' || state === 'starting';
/** Whether it is deleted, or about to be. */
export const isGone = ({ state }: Machine): boolean => state === 'gone' || state === 'ending';
/** Names one boot of a machine: a kept one boots again, for another build. */
export const runOf = ({ id, labels }: Machine): string => `${id} ${labels.build}`;
