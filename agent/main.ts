import { closeSync, openSync, readFileSync } from 'node:fs';
import { agentEnvironment, tokenOnStdin } from '@cde/api/agent.ts';
import { systemErrorReason } from '@cde/api/system-errors.ts';
import { collectBuffersEarly } from '@cde/tunnel/gc.ts';
import { useGateway } from '@cde/tunnel/network/gateway.ts';
import { makeAgent } from './agent.ts';
import about from './package.json' with { type: 'json' };

/** Exit codes beyond 0 and Node's own; the provider shows them with the last lines of stderr. */
const exitCodes = { badEnvironment: 2, refused: 4 };
/** A stop that takes longer is cut off. */
const stopWithinMs = 5000;

collectBuffersEarly({ smallNewSpace: true, smallHeap: true });
const print = (text: string) => process.stderr.write(`cde agent: ${text}\n`);

const serverUrl = process.env[agentEnvironment.serverUrl];
const token = readToken(process.env[agentEnvironment.token]);
const gateway = process.env[agentEnvironment.gateway];
const directForward = process.env[agentEnvironment.directForward];
const memoryLimit = Number(process.env[agentEnvironment.memoryLimit]) || null;
const shared = process.env[agentEnvironment.sharedNetwork] === 'yes';
// At once: nothing that runs in the workspace gets to see them.
for (const name of Object.values(agentEnvironment)) delete process.env[name];
process.title = 'cde-agent';

function readToken(given: string | undefined): string | undefined {
  if (given !== tokenOnStdin) return given;
  const token = readFileSync(0, 'utf8').trim();
  // What is behind it must not be had by way of /proc/PID/fd either.
  closeSync(0);
  openSync('/dev/null', 'r');
  return token;
}

if (!serverUrl || !token) {
  const missing = serverUrl ? agentEnvironment.token : agentEnvironment.serverUrl;
  print(
    `${missing} is not set. The provider that starts a workspace gives it; nothing else starts an agent.`,
  );
  process.exit(exitCodes.badEnvironment);
}

// While it waits for a server that is away, nothing else keeps the process alive.
setInterval(() => {}, 2 ** 30);

useGateway(gateway);
const agent = makeAgent({
  serverUrl,
  token,
  memoryLimit,
  network: gateway ? { kind: 'own', directForward } : { kind: shared ? 'shared' : 'whole' },
  version: about.version,
  print,
  onRejected(error) {
    print(`the server refuses this agent (${error.status} ${error.code}): ${error.message}`);
    void end(exitCodes.refused);
  },
});

let ending = false;
async function end(code: number): Promise<never> {
  // Its first reason to end stands.
  if (ending) return new Promise<never>(() => {});
  ending = true;
  setTimeout(() => process.exit(code), stopWithinMs).unref();
  await agent.stop();
  process.exit(code);
}
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.on(signal, () => {
    print(`ends by ${signal}`);
    void end(0);
  });
}
// The agent's terminal or supervisor is no concern of the sessions.
process.on('SIGHUP', () => {});
// A fault in one session must not end all the others.
process.on('uncaughtException', (error) => print(`a fault: ${error.stack ?? error}`));
process.on('unhandledRejection', (error) => print(`a fault: ${(error as Error)?.stack ?? error}`));

try {
  await agent.start();
} catch (error) {
  if (!ending) print(`cannot start: ${systemErrorReason(error) ?? (error as Error).stack ?? error}`);
  await end(1);
}
