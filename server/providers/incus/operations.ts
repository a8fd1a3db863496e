import { accept, type IncusClient, type Operation, orNull, path } from './client.ts';
import { hasRun, type Instance, runOf } from './instance.ts';

/** The operations of instances or volumes that run now, by any server. */
export async function runningOperations(
  client: IncusClient,
  kind: 'instances' | 'storage_volumes',
  name: string,
): Promise<Operation[]> {
  const all = await client.get<Record<string, Operation[] | undefined>>('/1.0/operations', {
    recursion: '1',
    'all-projects': 'true',
  });
  return Object.values(all)
    .flatMap((list) => list ?? [])
    .filter(({ status_code }) => status_code < 200)
    .filter(({ resources }) => resources?.[kind]?.some((url) => url.split('?')[0]!.endsWith(`/${name}`)));
}

/** Whether an instance has run and is stopped. One that is just starting is shown as if it were. */
export async function hasEnded(client: IncusClient, instance: Instance): Promise<boolean> {
  const { name, project, status } = instance;
  if (status !== 'Stopped' || !hasRun(instance)) return false;
  if ((await runningOperations(client, 'instances', name)).length > 0) return false;
  const now = await orNull(client.get<Instance>(path`/1.0/instances/${name}`, { project }));
  return now?.status === 'Stopped' && runOf(now) === runOf(instance);
}

/** Cancels those that can be cancelled, such as downloads of images. */
export async function cancel(client: IncusClient, operations: Operation[]): Promise<void> {
  for (const { id, may_cancel } of operations)
    if (may_cancel) await accept(client.send('DELETE', path`/1.0/operations/${id}`), 400, 404);
}
