import type { Build, Workspace } from '@cde/api/workspaces.ts';
import type { Colors } from '../output/output.ts';

const paints: Record<Workspace['status'], keyof Colors> = {
  pending: 'yellow',
  starting: 'yellow',
  running: 'green',
  stopping: 'yellow',
  stopped: 'dim',
  failed: 'red',
  deleting: 'yellow',
  deleted: 'dim',
};

/** A workspace's status, coloured by what it means. */
export function paintStatus(status: Workspace['status'], colors: Colors): string {
  return (colors[paints[status]] as (text: string) => string)(status);
}

const buildPaints: Record<Build['status'], keyof Colors> = {
  queued: 'yellow',
  running: 'yellow',
  succeeded: 'green',
  failed: 'red',
  cancelled: 'dim',
};

export function paintBuildStatus(status: Build['status'], colors: Colors): string {
  return (colors[buildPaints[status]] as (text: string) => string)(status);
}
