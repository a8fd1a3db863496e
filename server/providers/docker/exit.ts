import { constants } from 'node:os';
import type Dockerode from 'dockerode';
import type { EndCause } from '../provider.ts';
import { orNull } from './engine.ts';

/** What Docker writes for containers that were running when the engine itself ended. */
const engineEndedCode = 255;
const tailLines = 20;
const maxTailBytes = 8192;

/** Names one run of a container, and how long it lasted in milliseconds. */
export function runOf({ Id, State }: Dockerode.ContainerInspectInfo): { id: string; lived: number } {
  return {
    id: `${Id} ${State.StartedAt}`,
    lived: Date.parse(State.FinishedAt) - Date.parse(State.StartedAt),
  };
}

/** Why a container ended: the cause, and what happened in words that follow "The agent". */
export function explainExit({ State, HostConfig }: Dockerode.ContainerInspectInfo): {
  cause: EndCause;
  text: string;
} {
  const { ExitCode, OOMKilled } = State;
  if (OOMKilled && ExitCode !== 0) {
    const limit = HostConfig.Memory ? ` (limit ${Math.round(HostConfig.Memory / 2 ** 20)} MiB)` : '';
    return { cause: 'out-of-memory', text: `ran out of memory${limit}` };
  }
  if (ExitCode === engineEndedCode)
    return { cause: 'node-restarted', text: 'ended because the Docker engine or its machine was restarted' };
  const signal = Object.entries(constants.signals).find(([, number]) => number === ExitCode - 128)?.[0];
  return {
    cause: 'agent-exited',
    text: signal ? `was killed by ${signal}` : `exited with code ${ExitCode}`,
  };
}

/** The last lines that the container printed. */
export async function logTail(container: Dockerode.Container): Promise<string> {
  const bytes = await orNull(container.logs({ stdout: true, stderr: true, tail: tailLines, follow: false }));
  return bytes === null ? '' : withoutHeaders(bytes as unknown as Buffer);
}

/** Docker puts 8 bytes before each piece of output: the stream and the length. */
function withoutHeaders(bytes: Buffer): string {
  let text = '';
  for (let at = 0; at + 8 <= bytes.length; ) {
    const length = bytes.readUInt32BE(at + 4);
    text += bytes.toString('utf8', at + 8, at + 8 + length);
    at += 8 + length;
  }
  return text.slice(-maxTailBytes);
}
