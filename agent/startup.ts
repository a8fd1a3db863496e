import { postAgentStartup } from '@cde/api/agent.ts';
import { runScript, type ScriptEnd } from './script.ts';
import { retryTransient, type ServerClient } from './server/client.ts';
import type { LogShipper } from './server/logs.ts';
import type { OwnTools, Workspace } from './ssh/environment.ts';
import type { PipePool } from './ssh/jobs/pipes.ts';

/** How long a server that does not accept the log delays the report of the end. */
const deliverMs = 60_000;

/** Runs the manifest's startup script, if any, and reports its start and end to the server. */
export async function serveStartup(options: {
  startup: { script: string; timeoutMs: number } | null;
  client: ServerClient;
  workspace: Workspace;
  log: LogShipper;
  pool: PipePool;
  own?: OwnTools | undefined;
  /** Stops the script. */
  signal: AbortSignal;
  /** Stops reporting. */
  ended: AbortSignal;
}): Promise<void> {
  const { startup, client, log, ended } = options;
  const report = (body: Parameters<typeof send>[0]) =>
    retryTransient(() => send(body), { signal: ended }).catch(() => {});
  const send = (body: { state: 'none' } | { state: 'running' } | ({ state: 'done' } & ScriptEnd)) =>
    client.call(postAgentStartup, { body });
  if (!startup) return report({ state: 'none' });
  const running = report({ state: 'running' });
  const end = await runScript({ ...options, ...startup, name: 'startup' });
  // The agent is stopping: the script runs again with the next one.
  if (options.signal.aborted && !end.timedOut) return;
  // Keeps the reports in order.
  await running;
  const reportEnd = async () => {
    await log.deliver(deliverMs);
    await send({ state: 'done', ...end });
  };
  await retryTransient(reportEnd, { signal: ended }).catch(() => {});
}
