import type { Log } from '@cde/tunnel/log.ts';
import type { IncusClient } from './client.ts';
import type { Instance } from './instance.ts';
import { keys, workspaceOf } from './names.ts';

const minDelayMs = 1_000;
const maxDelayMs = 30_000;
/** A connection that was cut without a word is replaced by then. Between events there is silence, so it is not an error. */
const maxConnectionMs = 10 * 60_000;

interface LifecycleEvent {
  metadata?: { action?: string; source?: string };
}

const followed = new Set([
  'instance-created',
  'instance-started',
  'instance-shutdown',
  'instance-stopped',
  'instance-restarted',
  'instance-deleted',
]);

/**
 * Follows the server's events of our instances. What happened between two connections is found by asking for all instances
 * that do not run.
 */
export function watchInstances(options: {
  client: () => Promise<IncusClient>;
  installation: string;
  onChange: (workspaceId: string) => void;
  log: Log;
}): { close(): void } {
  const { installation, onChange, log } = options;
  let closed = false;
  let socket: ReturnType<IncusClient['events']> | undefined;
  let timer: NodeJS.Timeout | undefined;
  let delayMs = minDelayMs;

  function handle(data: unknown): void {
    const { metadata } = JSON.parse(String(data)) as LifecycleEvent;
    if (!followed.has(metadata?.action ?? '')) return;
    const name = metadata?.source?.replace(/\?.*/, '').split('/').at(-1);
    const workspaceId = workspaceOf(name ?? '');
    if (workspaceId) onChange(workspaceId);
  }

  async function resync(client: IncusClient): Promise<void> {
    const all = await client.get<Instance[]>('/1.0/instances', { recursion: '1', 'all-projects': 'true' });
    for (const { name, status, config } of all) {
      if (config[keys.installation] !== installation || status === 'Running') continue;
      const workspaceId = workspaceOf(name);
      if (workspaceId) onChange(workspaceId);
    }
  }

  async function follow(): Promise<void> {
    const client = await options.client();
    if (closed) return;
    const opened = client.events({ type: 'lifecycle', 'all-projects': 'true' });
    socket = opened;
    const renewal = setTimeout(() => opened.close(), maxConnectionMs);
    renewal.unref();
    await new Promise<void>((resolve, reject) => {
      opened.addEventListener('open', () => {
        delayMs = minDelayMs;
        resync(client).catch(reject);
      });
      opened.addEventListener('message', ({ data }) => {
        try {
          handle(data);
        } catch (error) {
          reject(error);
        }
      });
      opened.addEventListener('error', ({ error }) => reject(error ?? new Error('The connection failed.')));
      opened.addEventListener('close', () => resolve());
    }).finally(() => {
      clearTimeout(renewal);
      opened.close();
    });
  }

  function run(): void {
    follow()
      .catch((error) => {
        if (!closed) log.debug({ err: error }, 'incus provider: the events of the server were interrupted');
      })
      .finally(() => {
        if (closed) return;
        timer = setTimeout(run, delayMs);
        timer.unref();
        delayMs = Math.min(delayMs * 2, maxDelayMs);
      });
  }
  run();

  return {
    close() {
      closed = true;
      clearTimeout(timer);
      socket?.close();
    },
  };
}
