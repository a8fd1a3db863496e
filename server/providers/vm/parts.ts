import type { Log } from '@cde/tunnel/log.ts';
import type { WorkspaceSpec } from '../provider.ts';
import type { Cloud, CloudKind } from './cloud.ts';
import type { Homes } from './homes.ts';
import type { Labels } from './labels.ts';
import type { MachineView } from './machine-view.ts';

/** What the steps of a provider share. */
export interface CloudParts {
  kind: CloudKind;
  cloud: Cloud;
  installation: string;
  view: MachineView;
  homes: Homes;
  /** Whether the agent of a build has registered with a server. */
  hasRegistered: (buildId: string) => Promise<boolean>;
  certificateAuthorities: string | null;
  graceSeconds: number;
  maxBootMs: number;
  /** How long a step waits before the next look at what takes seconds. */
  retryMs: number;
  log: Log;
  now: () => Date;
}

/** Labels of everything of a workspace. */
export const ownLabels = (
  { installation }: CloudParts,
  { workspaceId, owner, name }: WorkspaceSpec,
  role: NonNullable<Labels['role']>,
): Labels => ({ installation, role, workspace: workspaceId, owner, name });
