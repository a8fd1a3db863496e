import { createServer, type Socket } from 'node:net';
import { splice } from '@cde/tunnel/streams/targets.ts';
import type { Context } from '../../command/context.ts';
import { line } from '../../command/result.ts';
import { exitCodes } from '../../failure/exit-codes.ts';
import { Failure, toFailure, usage } from '../../failure/failure.ts';
import { renderEvent } from '../../output/render.ts';
import { maintainSession, type PathInput, type Sessions } from '../sessions.ts';
import type { StartInput } from '../start-option.ts';
import { type Start, startChoice } from '../start-question.ts';
import { type PortSpec, parsePorts, parseReversePorts } from './port-specs.ts';

export async function portForward(
  context: Context,
  input: {
    workspace: string;
    ports: string[];
    reverse: string[];
    address: string | undefined;
    path: string | undefined;
    verbose: boolean;
  } & StartInput,
): Promise<number | undefined> {
  const address = input.address ?? '127.0.0.1';
  if (input.ports.length + input.reverse.length === 0)
    throw usage('No port is given.', 'Write cde port-forward WORKSPACE PORT…, or -R PORT.');
  const open = await openPorts(context, { ...input, address, start: startChoice(context, input) });
  try {
    for (const port of open.ports) announce(context, input.workspace, port, address);
    for (const reversed of open.reversed) announceReverse(context, input.workspace, reversed);
    await open.ended.catch((error) => {
      // It runs until Ctrl-C: that is how it is meant to end.
      if (!context.signal.aborted) throw error;
    });
    return undefined;
  } finally {
    open.close();
  }
}

interface OpenPort {
  spec: PortSpec;
  /** The port of this machine. */
  local: number;
  close(): void;
}

/** Forwards ports until `close`. `ended` rejects when there can be no more sessions, or at Ctrl-C. */
export async function openPorts(
  context: Context,
  input: {
    workspace: string;
    ports: string[];
    reverse?: string[];
    address: string;
    start: Start;
  } & PathInput,
) {
  const specs = input.ports.flatMap(parsePorts);
  const reverseSpecs = (input.reverse ?? []).flatMap(parseReversePorts);
  const tell = makeErrorReporter(context);
  const reverse =
    reverseSpecs.length === 0
      ? null
      : (await import('./reverse-forward.ts')).maintainReverseForward(
          context,
          input.workspace,
          reverseSpecs,
          ({ remote, host, local }, error) =>
            tell(`port ${remote} of ${input.workspace} (${host}:${local} here)`, error),
        );
  const sessions = maintainSession(context, input.workspace, input.start, input, reverse?.serve);
  const ports: OpenPort[] = [];
  const close = () => {
    for (const port of ports) port.close();
    sessions.close();
  };
  try {
    await sessions.get();
    // All ports or none: half of what was asked for would be noticed too late.
    for (const spec of specs) {
      const failed = (error: unknown) => tell(String(spec.local), error);
      const opened =
        spec.protocol === 'udp'
          ? (await import('./udp-forward.ts')).listenUdp(spec, input.address, sessions, failed)
          : listen(spec, input.address, sessions, failed);
      const { port, close: closePort } = await opened.catch((error) => {
        throw unavailable(spec, input.address, error);
      });
      ports.push({ spec, local: port, close: closePort });
    }
    const reversed = reverse ? await Promise.race([reverse.first, sessions.ended]) : [];
    return { ports, reversed, ended: sessions.ended, close };
  } catch (error) {
    close();
    throw error;
  }
}

/** A browser tries many times a second: each reason is told once. */
function makeErrorReporter({ out, signal }: Context): (where: string, error: unknown) => void {
  const told = new Set<string>();
  return (where, error) => {
    const failure = toFailure(error);
    const key = `${where} ${failure.code}`;
    if (signal.aborted || told.has(key)) return;
    told.add(key);
    out.note(`${where}: ${failure.message}${failure.hint ? ` ${failure.hint}` : ''}`);
  };
}

function unavailable(spec: PortSpec, address: string, cause: NodeJS.ErrnoException): Failure {
  const why =
    cause.code === 'EADDRINUSE' ? 'it is in use' : cause.code === 'EACCES' ? 'you may not' : cause.message;
  const udp = spec.protocol === 'udp' ? '/udp' : '';
  return new Failure('port-unavailable', `Cannot listen on ${address}:${spec.local}${udp}: ${why}.`, {
    exitCode: exitCodes.conflict,
    hint: `Take another local port: 0:${spec.remote}${udp} takes any free one.`,
    cause,
  });
}

function listen(
  spec: PortSpec,
  address: string,
  sessions: Sessions,
  onFailure: (error: unknown) => void,
): Promise<{ port: number; close(): void }> {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    socket.on('error', () => {}); // The local program disconnected.
    forwardConnection(socket, spec, sessions).catch((error) => {
      socket.destroy();
      onFailure(error);
    });
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(spec.local, address, () => {
      const bound = server.address();
      resolve({
        port: typeof bound === 'object' && bound ? bound.port : spec.local,
        close: () => void server.close(),
      });
    });
  });
}

async function forwardConnection(socket: Socket, spec: PortSpec, sessions: Sessions): Promise<void> {
  const session = await sessions.get();
  const stream = await session.open({ kind: 'tcp', host: spec.host, port: spec.remote });
  await splice(socket, stream);
}

function announce(
  { out }: Context,
  workspace: string,
  { spec: { host, remote, protocol }, local }: OpenPort,
  address: string,
): void {
  const udp = protocol === 'udp' ? '/udp' : '';
  const there = host === 'localhost' ? `port ${remote}${udp}` : `${host}:${remote}${udp}`;
  renderEvent(
    out,
    { address, port: local, protocol, workspace, host, remotePort: remote },
    line(`${address}:${local}${udp} → ${there} of ${workspace}`),
  );
}

function announceReverse(
  { out }: Context,
  workspace: string,
  { spec: { host, local }, remote }: { spec: { host: string; local: number }; remote: number },
): void {
  renderEvent(
    out,
    { reverse: true, workspace, remotePort: remote, host, port: local },
    line(`port ${remote} of ${workspace} → ${host}:${local} here`),
  );
}
