import { ProviderFailure } from '../failure.ts';
import type { AgentLaunch, StepContext } from '../provider.ts';
import { accept, alreadyThere, path } from './client.ts';
import {
  canBeRoot,
  hasRun,
  type Instance,
  type InstancePlan,
  type Kind,
  workspaceInstance,
} from './instance.ts';
import { boot, launchContainer } from './launch.ts';
import { instanceName, keys } from './names.ts';
import { runningOperations } from './operations.ts';
import type { IncusParts } from './parts.ts';
import { endInstance } from './stop.ts';
import { findSurroundings } from './surroundings.ts';

/** What a step that has begun something waits for, in words; null: nothing that takes long. */
type Waiting = string | null;

/** What the workspace runs as. */
export function kindOf({ about }: IncusParts, wanted: 'auto' | Kind): Kind {
  const architecture = { x64: 'x86_64', arm64: 'aarch64' }[process.arch as string] ?? process.arch;
  if (!about.architectures.includes(architecture))
    throw new ProviderFailure({
      code: 'wrong-architecture',
      message: `The Incus server has another processor than this server, whose agent (${architecture}) it has to run.`,
      hint: 'Use an Incus server with the same processor.',
      fault: 'system',
    });
  if (wanted === 'auto') return about.kinds.includes('virtual-machine') ? 'virtual-machine' : 'container';
  if (!about.kinds.includes(wanted))
    throw new ProviderFailure({
      code: 'instance-type-not-supported',
      message: `The Incus server cannot run instances of the type ${wanted}.`,
      detail: `It can run: ${about.kinds.join(', ')}. Virtual machines need KVM and QEMU on its host.`,
      hint: 'Set incus.type to auto in the template, or enable virtual machines on the host.',
      fault: 'user',
    });
  return wanted;
}

/** A step towards an instance that has not run yet. */
export async function createInstance(
  parts: IncusParts,
  { spec, launch, kind, home }: Pick<InstancePlan, 'spec' | 'launch' | 'kind' | 'home'>,
  context: StepContext,
): Promise<Waiting> {
  const { client, about, background, progress } = parts;
  const section = spec.template.incus!;
  const key = `${home.project}/${instanceName(spec.workspaceId)}`;
  const volume = await background.result(
    `agent volume ${home.project} ${home.pool} ${home.member} ${kind}`,
    () =>
      parts.agentVolumes.ensure(client, home, kind, {
        isBusy: async (name) => (await runningOperations(client, 'storage_volumes', name)).length > 0,
        creator: about.process,
      }),
  );
  if (!volume?.value) return 'The agent is being copied to the Incus server.';
  const agentVolume = volume.value;
  const creation = await background.result(`create ${key}`, async () => {
    const surroundings = await findSurroundings(client, section);
    const plan: InstancePlan = {
      installation: parts.installation,
      spec,
      section,
      launch,
      kind,
      home,
      agentVolume,
      surroundings,
      gatewayFolder: parts.gatewayFolder,
      creator: about.process,
    };
    context.log(`image ${section.image}, ${kind === 'container' ? 'system container' : 'virtual machine'}`);
    if (canBeRoot(section)) context.log('programs of the workspace can become root inside its instance');
    if (surroundings.nic && !surroundings.nic.isIsolated)
      context.log('its network cannot keep workspaces apart: only a bridge of Incus can', 'warn');
    try {
      const creating = client.run('POST', '/1.0/instances', {
        query: {
          project: home.project,
          target: home.member ?? (about.isClustered ? section.target : undefined),
        },
        body: workspaceInstance(plan),
        onProgress: (said) => {
          const part = Object.values(said).find((each) => typeof each === 'string');
          if (part) progress.set(key, part as string);
        },
      });
      // Another replica was first.
      await accept(creating, 409, alreadyThere);
    } finally {
      progress.delete(key);
      parts.wake(spec.workspaceId);
    }
  });
  if (creation) return null;
  const said = progress.get(key);
  return said ? `The image ${section.image} is being unpacked: ${said}` : null;
}

/** A step of an instance that exists and has never run. */
export async function launchInstance(
  parts: IncusParts,
  found: Instance,
  { launch, unit, kind }: { launch: AgentLaunch; unit: string; kind: Kind },
): Promise<Waiting> {
  const { client, about, background } = parts;
  if (found.status !== 'Stopped' || hasRun(found)) return null;
  const at = path`/1.0/instances/${found.name}`;
  const query = { project: found.project };
  if (!found.config[keys.complete]) {
    if ((await runningOperations(client, 'instances', found.name)).length > 0) return null;
    // Incus was killed while it created this one.
    if (found.config[keys.creator] !== about.process) {
      await endInstance(parts, found);
      return null;
    }
  }
  const launching = background.result(`launch ${found.project}/${found.name}`, async () => {
    const launched = async () => {
      await client.send('PATCH', at, { query, body: { config: { [keys.complete]: 'true' } } });
      if (kind === 'container') await launchContainer(client, found, launch, unit);
      else await boot(client, found);
    };
    // Its creation failed meanwhile, and it is made again.
    await accept(launched(), /instance not found/i);
  });
  try {
    await launching;
  } catch (error) {
    // The next start creates it again. Deleted here and not in the background: a step between the deletion
    // and the failure would create it again.
    if (error instanceof ProviderFailure) await client.run('DELETE', at, { query }).catch(() => {});
    throw error;
  }
  return null;
}
