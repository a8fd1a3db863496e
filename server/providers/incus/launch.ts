import { ProviderFailure } from '../failure.ts';
import { tokenFile } from '../prepare/enter-plan.ts';
import type { AgentLaunch } from '../provider.ts';
import { unitFile, unitName } from '../vm/unit.ts';
import {
  accept,
  type IncusClient,
  IncusError,
  isBusy,
  isUnreachable,
  messageOf,
  orNull,
  path,
  statusOf,
} from './client.ts';
import type { Instance } from './instance.ts';

type Target = Pick<Instance, 'name' | 'project'>;

const filesOf = ({ name }: Target) => path`/1.0/instances/${name}/files`;

async function push(
  client: IncusClient,
  target: Target,
  file: string,
  { type = 'file', mode, content }: { type?: 'file' | 'symlink'; mode?: string; content: string },
): Promise<void> {
  await client.send('POST', filesOf(target), {
    query: { project: target.project, path: file },
    body: Buffer.from(content),
    headers: {
      'content-type': 'application/octet-stream',
      'x-incus-type': type,
      'x-incus-uid': '0',
      'x-incus-gid': '0',
      'x-incus-write': 'overwrite',
      ...(mode !== undefined && { 'x-incus-mode': mode }),
    },
  });
}

/** Gives a container that has never run its agent's unit and token, and starts it. Can be repeated. */
export async function launchContainer(
  client: IncusClient,
  target: Target,
  launch: AgentLaunch,
  unit: string,
): Promise<void> {
  const { project } = target;
  if ((await client.readFile(filesOf(target), { project, path: '/lib/systemd/systemd' })) === null)
    throw new ProviderFailure({
      code: 'image-without-systemd',
      message: 'The image has no systemd, which has to start the agent.',
      hint: 'Use an image of a full system, such as images:debian/12.',
      fault: 'user',
    });
  await push(client, target, unitFile, { mode: '0644', content: unit });
  const wanted = `/etc/systemd/system/multi-user.target.wants/${unitName}`;
  await accept(push(client, target, wanted, { type: 'symlink', content: unitFile }), /exist/i);
  await push(client, target, tokenFile, { mode: '0400', content: launch.token });
  await boot(client, target);
}

/** Gives the agent's unit and token to a virtual machine that runs. False while it boots. */
export async function launchInMachine(
  client: IncusClient,
  target: Target,
  launch: AgentLaunch,
  unit: string,
): Promise<boolean> {
  const { project } = target;
  try {
    await push(client, target, tokenFile, { mode: '0400', content: launch.token });
  } catch (error) {
    if (statusOf(error) !== undefined && /agent|vsock|not.*connect/i.test(messageOf(error))) return false;
    throw error;
  }
  await push(client, target, unitFile, { mode: '0644', content: unit });
  await client.run('POST', path`/1.0/instances/${target.name}/exec`, {
    query: { project },
    body: {
      command: ['sh', '-c', `systemctl daemon-reload && systemctl start ${unitName}`],
      'wait-for-websocket': false,
      interactive: false,
    },
  });
  return true;
}

/** Starts an instance. */
export async function boot(client: IncusClient, { name, project }: Target): Promise<void> {
  const at = path`/1.0/instances/${name}`;
  try {
    await accept(
      client.run('PUT', `${at}/state`, { query: { project }, body: { action: 'start', timeout: -1 } }),
      /already running/i,
    );
  } catch (error) {
    const isPassing = !(error instanceof IncusError) || isBusy(error) || isUnreachable(error);
    if (isPassing || (await isRunning(client, { name, project }))) throw error;
    const log = await orNull(client.readFile(`${at}/logs/lxc.log`, { project })).catch(() => null);
    throw new ProviderFailure({
      code: 'instance-not-started',
      message: 'Incus could not start the instance.',
      detail: [error.message, (log ?? '').slice(-2000)].join('\n').trim(),
      hint: 'The detail shows what Incus reported. The image has to be a full system.',
      fault: 'system',
    });
  }
}

const isRunning = async (client: IncusClient, { name, project }: Target) =>
  (await orNull(client.get<Instance>(path`/1.0/instances/${name}`, { project })))?.status === 'Running';

/** The end of what the instance wrote to its console. */
export async function consoleTail(client: IncusClient, { name, project }: Target): Promise<string> {
  const text = await client
    .readFile(path`/1.0/instances/${name}/console`, { project, type: 'log' })
    .catch(() => null);
  return (text ?? '').slice(-4000).trim();
}
