import type { ActivityEvent, WorkspaceActivity } from '@cde/api/activity.ts';
import type { Cluster } from '@cde/api/clusters.ts';
import type { User } from '@cde/api/identity.ts';
import type { Node } from '@cde/api/nodes.ts';
import type { Template } from '@cde/api/templates.ts';
import type { Build, BuildStage, LogLine, Workspace } from '@cde/api/workspaces.ts';

// Objects of the contract, for the stand-in server.

const id = (n: number) => `01990000-0000-7000-8000-${String(n).padStart(12, '0')}`;
const at = (seconds: number) => new Date(Date.UTC(2026, 0, 1) + seconds * 1000).toISOString();

export function user(more: Partial<User> = {}): User {
  return {
    id: id(1),
    username: 'ada',
    name: 'Ada',
    email: null,
    role: 'member',
    status: 'active',
    createdAt: at(0),
    lastSeenAt: null,
    ...more,
  };
}

export function template(): Template {
  return {
    id: id(2),
    name: 'local',
    title: 'Local',
    description: '',
    icon: '',
    provider: 'local',
    workspaces: 0,
    createdAt: at(0),
    updatedAt: at(0),
    activeVersion: {
      id: id(3),
      templateId: id(2),
      number: 1,
      message: '',
      provider: 'local',
      parameters: [
        { name: 'cpus', type: 'number', integer: false, immutable: false, default: 2 },
        { name: 'tools', type: 'list', maxItems: 20, immutable: false, default: [] },
        { name: 'gui', type: 'boolean', immutable: false, default: false },
        { name: 'editor', type: 'string', immutable: false, default: 'vi' },
      ],
      active: true,
      createdAt: at(0),
      createdBy: 'ada',
    },
  };
}

export function stage(name: BuildStage['name'], status: BuildStage['status'] = 'succeeded'): BuildStage {
  return { name, status, startedAt: at(0), finishedAt: status === 'running' ? null : at(1) };
}

export function build(more: Partial<Build> = {}): Build {
  return {
    id: id(4),
    workspaceId: id(5),
    number: 1,
    transition: 'start',
    status: 'running',
    templateVersion: 1,
    stages: [stage('queued', 'running')],
    error: null,
    initiator: 'ada',
    reason: '',
    cancelRequested: false,
    createdAt: at(0),
    startedAt: null,
    finishedAt: null,
    ...more,
  };
}

export function workspace(more: Partial<Workspace> = {}): Workspace {
  return {
    id: id(5),
    owner: 'ada',
    name: 'web',
    template: 'local',
    templateVersion: 1,
    activeTemplateVersion: 1,
    outdated: false,
    provider: 'local',
    parameters: {},
    desired: 'running',
    status: 'starting',
    reason: null,
    isolation: null,
    cluster: null,
    namespace: null,
    home: '/home/ada',
    agent: { connected: false, version: null, lastSeenAt: null, sshHostKey: null },
    latestBuild: build(),
    createdAt: at(0),
    updatedAt: at(0),
    ...more,
  };
}

export function line(seq: number, text: string, more: Partial<LogLine> = {}): LogLine {
  return { seq, at: at(seq), stage: 'startup', source: 'startup', level: 'info', text, ...more };
}

export function activity(more: Partial<WorkspaceActivity> = {}): WorkspaceActivity {
  return {
    state: null,
    policy: {
      stopAfterSeconds: 7200,
      maxRunSeconds: null,
      dormantAfterDays: null,
      archiveAfterDays: null,
      deleteAfterDays: null,
      schedule: null,
      neverStop: null,
      startOnConnect: false,
      limited: [],
    },
    choices: {},
    startsAt: null,
    dormantAt: null,
    archivedAt: null,
    deletesAt: null,
    signals: [
      { signal: 'terminal-input', source: 'person', lastAt: at(0), by: 'ada' },
      { signal: 'process-cpu', source: 'work', lastAt: null, by: null },
    ],
    reportedAt: at(60),
    leases: [],
    ...more,
  };
}

export function activityEvent(n: number, more: Partial<ActivityEvent> = {}): ActivityEvent {
  return {
    id: id(n),
    at: at(n),
    until: null,
    kind: 'started',
    signal: null,
    cause: null,
    by: null,
    text: 'Started.',
    ...more,
  };
}

export function node(more: Partial<Node> = {}): Node {
  const resources = { cpus: 4, memoryBytes: 2 ** 34, storageBytes: null, pods: 110 };
  return {
    name: 'pool.a-1',
    provider: 'kubernetes',
    cluster: 'eu',
    state: 'ready',
    reason: null,
    schedulable: true,
    pool: 'dev',
    os: 'Debian GNU/Linux 12',
    kernel: '6.18.44',
    architecture: 'amd64',
    runtime: 'kubelet v1.35.4, containerd://2.2.0',
    capacity: resources,
    allocatable: { ...resources, cpus: 3.92 },
    workspaces: 0,
    kernelProfiles: [],
    kernelFault: null,
    notRestored: [],
    ...more,
  };
}

export function cluster(more: Partial<Cluster> = {}): Cluster {
  return {
    id: id(7),
    name: 'eu',
    region: 'europe-west1',
    labels: {},
    isDefault: true,
    credentials: 'kubeconfig',
    endpoint: 'https://eu.example.com',
    publicEndpoint: null,
    state: 'ready',
    reason: null,
    version: 'v1.35.4',
    seenAt: at(0),
    workspaces: 0,
    createdAt: at(0),
    ...more,
  };
}
