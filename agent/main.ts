import { closeSync, openSync, readFileSync } from 'node:fs';
import { agentEnvironment, tokenOnStdin } from '@cde/api/agent.ts';
import { systemErrorReason } from '@cde/api/system-errors.ts';
import { collectBuffersEarly } from '@cde/tunnel/gc.ts';
import { useGateway } from '@cde/tunnel/network/gateway.ts';
import { makeAgent } from './agent.ts';
import { trustCertificateAuthorities } from './certificate-authorities.ts';
import about from './package.json' with { type: 'json' };

/** Exit codes, which the provider shows with the last lines of stderr. */
const exitCodes = { badEnvironment: 2, refused: 4 };
/** The process exits after this time even if stopping hangs. */
const stopWithinMs = 5000;

collectBuffersEarly({ smallNewSpace: true, smallHeap: true });
const print = (text: string) => process.stderr.write(`cde agent: ${text}\n`);

const serverUrl = process.env[agentEnvironment.serverUrl];
const token = readToken(process.env[agentEnvironment.token]);
const gateway = process.env[agentEnvironment.gateway];
const directForward = process.env[agentEnvironment.directForward];
const memoryLimit = Number(process.env[agentEnvironment.memoryLimit]) || null;
const shared = process.env[agentEnvironment.sharedNetwork] === 'yes';
trustCertificateAuthorities(process.env[agentEnvironment.certificateAuthorities]);
// Removed at once, so that nothing in the workspace inherits them.
for (const name of Object.values(agentEnvironment)) delete process.env[name];
process.title = 'cde-agent';

function readToken(given: string | undefined): string | undefined {
  if (given !== tokenOnStdin) return given;
  const token = readFileSync(0, 'utf8').trim();
  // So that it cannot be read through /proc/PID/fd either.
  closeSync(0);
  openSync('/dev/null', 'r');
  return token;
}

if (!serverUrl || !token) {
  const missing = serverUrl ? agentEnvironment.token : agentEnvironment.serverUrl;
  print(`${missing} is not set. Agents are started by the provider of a workspace, which sets it.`);
  process.exit(exitCodes.badEnvironment);
}

// Keeps the process alive while it waits to retry.
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
    print(`the server rejects this agent (${error.status} ${error.code}): ${error.message}`);
    void end(exitCodes.refused);
  },
});

let ending = false;
async function end(code: number): Promise<never> {
  // The first exit code wins.
  if (ending) return new Promise<never>(() => {});
  ending = true;
  setTimeout(() => process.exit(code), stopWithinMs).unref();
  await agent.stop();
  process.exit(code);
}
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.on(signal, () => {
    print(`stopping on ${signal}`);
    void end(0);
  });
}
// Sessions must survive the end of the terminal that the agent was started from.
process.on('SIGHUP', () => {});
// A bug in one session must not end the others.
process.on('uncaughtException', (error) => print(`uncaught error: ${error.stack ?? error}`));
process.on('unhandledRejection', (error) =>
  print(`unhandled rejection: ${(error as Error)?.stack ?? error}`),
);

try {
  await agent.start();
} catch (error) {
  if (!ending) print(`cannot start: ${systemErrorReason(error) ?? (error as Error).stack ?? error}`);
  await end(1);
}
