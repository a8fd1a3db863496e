import type { Log } from '@cde/tunnel/log.ts';
import type Dockerode from 'dockerode';
import { hasLabels, labels, withLabels } from './names.ts';

const minDelayMs = 1_000;
const maxDelayMs = 30_000;
/** Of one event; more is not from an engine. */
const maxEventBytes = 256 * 1024;

interface ContainerEvent {
  Action?: string;
  Actor?: { Attributes?: Record<string, string> };
}

/** Follows the engine's events of our containers. After an interruption the regular observations find what was missed. */
export function watchContainers(options: {
  /** A client of its own, without a time limit for silence. */
  engine: () => Promise<Dockerode>;
  installation: string;
  onEnd: (workspaceId: string) => void;
  log: Log;
}): { close(): void } {
  const { installation, onEnd, log } = options;
  const wanted = { [labels.installation]: installation, [labels.role]: 'container' };
  let closed = false;
  let stream: (NodeJS.ReadableStream & { destroy(): void }) | undefined;
  let timer: NodeJS.Timeout | undefined;
  let delayMs = minDelayMs;

  function handle(line: string): void {
    if (line.trim() === '') return;
    const event = JSON.parse(line) as ContainerEvent;
    const own = event.Actor?.Attributes;
    const workspaceId = own?.[labels.workspace];
    if (workspaceId && hasLabels(own, wanted)) onEnd(workspaceId);
  }

  async function follow(): Promise<void> {
    const engine = await options.engine();
    stream = (await engine.getEvents({
      filters: {
        type: ['container'],
        // Docker's names, and Podman's where they differ.
        event: ['die', 'died', 'destroy', 'remove', 'oom'],
        ...withLabels(wanted),
      },
    })) as typeof stream;
    if (closed) return stream!.destroy();
    delayMs = minDelayMs;
    let rest = '';
    for await (const chunk of stream!) {
      rest += chunk.toString();
      const lines = rest.split('\n');
      rest = lines.pop()!;
      if (rest.length > maxEventBytes) throw new Error('An event of the engine is too long.');
      for (const line of lines) handle(line);
    }
  }

  function run(): void {
    follow()
      .catch((error) => {
        if (!closed) log.debug({ err: error }, 'docker provider: the events of the engine were interrupted');
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
      stream?.destroy();
    },
  };
}
