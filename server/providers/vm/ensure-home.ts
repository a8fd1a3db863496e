import { ProviderFailure } from '../failure.ts';
import type { StepContext, WorkspaceSpec } from '../provider.ts';
import { gibibytes } from './boot-data.ts';
import type { Machine, Volume } from './cloud.ts';
import { hasBeenAttached } from './homes.ts';
import { digest } from './labels.ts';
import { moveHome } from './move-home.ts';
import { type CloudParts, ownLabels } from './parts.ts';
import { begun, readState, type State } from './state.ts';

const defaultGibibytes = 20;

export type HomeStep = { home: Volume; state: State } | { waitingFor: string; state: State };

/** One step towards the home: that of the workspace, restored, or a new one. A home that existed is never replaced. */
export async function ensureHome(
  parts: CloudParts,
  spec: WorkspaceSpec,
  buildId: string,
  state: State,
  context: StepContext,
): Promise<HomeStep> {
  const { cloud, kind, homes } = parts;
  const { workspaceId, owner, name, restore } = spec;
  const hint = state.home ?? (restore && readState(restore.state).home);
  if (restore && !(await homes.restore(restore.workspaceId, { id: workspaceId, owner, name }, hint)))
    throw homeLost(parts);
  const home = await homes.find(workspaceId, hint);
  if (!home) {
    if (restore || (state.home !== undefined && !state.isUnused)) throw homeLost(parts);
    return createHome(parts, spec, buildId, state, context);
  }
  const known: State = { ...state, home: home.id, isUnused: !home.labels.used };
  if (home.state === 'creating')
    return { waitingFor: 'The volume of the home is being created.', state: known };
  if (home.state === 'failed')
    throw new ProviderFailure({
      code: 'home-not-usable',
      message: `${kind.title} says that the volume of the home, ${home.id}, has an error.`,
      hint: `Restore it from a snapshot: ${kind.docs}.`,
      fault: 'system',
    });
  if (home.attachedTo === null) {
    const zones = await cloud.zones(spec);
    if (!zones.includes(home.zone)) {
      const moved = await moveHome(parts, spec, home, zones[0]!, context);
      return 'home' in moved
        ? { home: moved.home, state: { ...known, home: moved.home.id } }
        : {
            waitingFor: moved.waitingFor,
            state: { ...known, ...begun(moved.operation, buildId, home.zone) },
          };
    }
    await growHome(parts, spec, home, context);
  }
  return { home, state: known };
}

async function createHome(
  parts: CloudParts,
  spec: WorkspaceSpec,
  buildId: string,
  state: State,
  context: StepContext,
): Promise<HomeStep> {
  const { homes, installation } = parts;
  const { workspaceId } = spec;
  const { size } = spec.template.home;
  const zones = await parts.cloud.zones(spec);
  // All are full: then the last attempt fails with the reason.
  const zone = chooseZone(zones, workspaceId, fullZones(state, buildId)) ?? zones[0]!;
  let operation: string | undefined;
  try {
    ({ operation } = await homes.create({
      spec,
      zone,
      gibibytes: size ? gibibytes(size) : defaultGibibytes,
      key: digest(installation, workspaceId, buildId, zone, 'home'),
      labels: ownLabels(parts, spec, 'home'),
    }));
  } catch (error) {
    return leaveZone(parts, spec, buildId, state, zone, error, context);
  }
  const created = await homes.find(workspaceId);
  if (created) context.log(`home: volume ${created.id} created in ${zone}`);
  return {
    waitingFor: 'The volume of the home is being created.',
    state: {
      ...state,
      ...(created && { home: created.id }),
      ...begun(operation, buildId, zone),
      isUnused: true,
    },
  };
}

const fullZones = ({ full }: State, buildId: string): string[] => (full?.build === buildId ? full.zones : []);

/** Workspaces are spread over the zones. Undefined if all are full. */
function chooseZone(
  zones: readonly string[],
  workspaceId: string,
  full: readonly string[],
): string | undefined {
  const first = Number.parseInt(digest(workspaceId).slice(0, 6), 16) % zones.length;
  return [...zones.slice(first), ...zones.slice(0, first)].find((zone) => !full.includes(zone));
}

/** A home without files can as well be in another zone than the one that has no capacity. Throws the error if there is none. */
export async function leaveZone(
  { kind, cloud, homes }: CloudParts,
  spec: WorkspaceSpec,
  buildId: string,
  state: State,
  zone: string,
  error: unknown,
  context: StepContext,
): Promise<{ waitingFor: string; state: State }> {
  if (!kind.isRefusal(error)) throw error;
  const { code, detail } = kind.refusal(error);
  if (code !== kind.codes.noCapacity) throw error;
  const zones = [...new Set([...fullZones(state, buildId), zone])];
  const next = chooseZone(await cloud.zones(spec), spec.workspaceId, zones);
  if (next === undefined) throw error;
  const home = await homes.find(spec.workspaceId, state.home);
  if (home && (spec.restore || hasBeenAttached(home) || !(await homes.abandon(home)))) throw error;
  context.log(`no capacity in ${zone} (${detail?.split(':')[0]}): trying ${next}`, 'warn');
  const { home: _, ...kept } = state;
  return {
    waitingFor: `The home is being created in ${next}.`,
    state: { ...kept, full: { build: buildId, zones } },
  };
}

/** A home never gets smaller. The machine enlarges the file system. */
async function growHome(
  { cloud }: CloudParts,
  spec: WorkspaceSpec,
  home: Volume,
  context: StepContext,
): Promise<void> {
  const { size } = spec.template.home;
  const wanted = size ? gibibytes(size) : 0;
  if (wanted <= home.gibibytes) return;
  const whyNot = await cloud.growVolume(home, wanted);
  if (whyNot === null) context.log(`home: enlarged from ${home.gibibytes} to ${wanted} GiB`);
  else context.log(`home: not enlarged to ${wanted} GiB now: ${whyNot}`, 'warn');
}

/** Attaches the home to a running machine. */
export async function attachHome({ cloud, view }: CloudParts, home: Volume, machine: Machine) {
  // Before it can be written to, so that it is never taken for one without files.
  if (!hasBeenAttached(home)) await cloud.labelVolume(home, { attached: 'true' });
  await cloud.attach(machine, home);
  view.changed();
}

const homeLost = ({ kind }: CloudParts) =>
  new ProviderFailure({
    code: 'home-lost',
    message: `The volume of the home no longer exists on ${kind.title}.`,
    detail: 'No empty home is put in its place.',
    hint: `Restore it from a snapshot with the same tags (${kind.docs}), or delete this workspace.`,
    fault: 'system',
  });
