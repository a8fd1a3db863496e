import { flushCompileCache } from 'node:module';
import { readConfig } from '@cde/server/config.ts';
import { startControlPlane } from '@cde/server/control-plane.ts';
import { openDatabase } from '@cde/server/database/pool.ts';
import { makeLog } from '@cde/server/log.ts';
import { agentProgram } from '@cde/server/providers/agent-program.ts';
import { makeLocalProvider } from '@cde/server/providers/local/provider.ts';
import type { Provider } from '@cde/server/providers/provider.ts';

/**
 * A real replica with the real local provider. HANG_AT names workspaces by their ids, and the point of a step (`before
 * start`, …) at which it hangs in each until the test kills it. Reports to the test by IPC.
 */
const log = makeLog(process.env.CDE_LOG_LEVEL ?? 'silent');
const config = readConfig([], process.env);
const database = openDatabase(config.databaseUrl!, { max: 10 + 2 * config.concurrency });
const real = makeLocalProvider({
  dataDir: config.dataDir,
  agent: agentProgram(),
  isolation: config.isolation,
  log,
});
const hangAt = new Map<string, string>(Object.entries(JSON.parse(process.env.HANG_AT ?? '{}')));

async function at(point: string, workspaceId: string): Promise<void> {
  if (point !== hangAt.get(workspaceId)) return;
  process.send!({ hung: workspaceId });
  await new Promise(() => {});
}
const provider: Provider = {
  ...real,
  async start(...args) {
    await at('before start', args[0].workspaceId);
    const step = await real.start(...args);
    await at('after start', args[0].workspaceId);
    return step;
  },
  async stop(...args) {
    await at('before stop', args[0]);
    const step = await real.stop(...args);
    await at('after stop', args[0]);
    return step;
  },
  async remove(...args) {
    await at('before remove', args[0]);
    const step = await real.remove(...args);
    await at('after remove', args[0]);
    return step;
  },
  async observe(...args) {
    await at('observe', args[0]);
    return real.observe(...args);
  },
};

const server = await startControlPlane({ config, database, log, providers: new Map([['local', provider]]) });
process.send!({ ready: server.url });
// Otherwise only a process that ends by itself writes it.
flushCompileCache();
process.on('disconnect', () => process.exit(0));
process.on('SIGTERM', async () => {
  await server.stop();
  await database.close();
  process.exit(0);
});
