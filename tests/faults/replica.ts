import { readConfig } from '@cde/server/config.ts';
import { startControlPlane } from '@cde/server/control-plane.ts';
import { openDatabase } from '@cde/server/database/pool.ts';
import { makeLog } from '@cde/server/log.ts';
import { agentProgram } from '@cde/server/providers/agent-program.ts';
import { makeLocalProvider } from '@cde/server/providers/local/provider.ts';
import type { Provider } from '@cde/server/providers/provider.ts';

/**
 * A real replica, with the real local provider, that can be made to stand still at one point of a move
 * (HANG=`before start`, … of the workspace HANG_FOR) until the test kills it. Tells by IPC.
 */
const log = makeLog(process.env.CDE_LOG_LEVEL ?? 'silent');
const config = readConfig([], process.env);
const database = openDatabase(config.databaseUrl!, { max: 10 });
const real = makeLocalProvider({
  dataDir: config.dataDir,
  agent: agentProgram(),
  isolation: config.isolation,
  log,
});
const hang = process.env.HANG;

async function at(point: string, workspaceId: string): Promise<void> {
  if (point !== hang || workspaceId !== process.env.HANG_FOR) return;
  process.send!({ at: point });
  await new Promise(() => {});
}
const provider: Provider = {
  ...real,
  async start(...args) {
    await at('before start', args[0].workspaceId);
    const move = await real.start(...args);
    await at('after start', args[0].workspaceId);
    return move;
  },
  async stop(...args) {
    await at('before stop', args[0]);
    const move = await real.stop(...args);
    await at('after stop', args[0]);
    return move;
  },
  async remove(...args) {
    await at('before remove', args[0]);
    const move = await real.remove(...args);
    await at('after remove', args[0]);
    return move;
  },
  async observe(...args) {
    await at('observe', args[0]);
    return real.observe(...args);
  },
};

const server = await startControlPlane({ config, database, log, providers: new Map([['local', provider]]) });
process.send!({ ready: server.url });
process.on('disconnect', () => process.exit(0));
process.on('SIGTERM', async () => {
  await server.stop();
  await database.close();
  process.exit(0);
});
