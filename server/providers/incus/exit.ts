import type { EndCause } from '../provider.ts';
import { formatQuantity, parseQuantity } from '../quantity.ts';
import { type IncusClient, path, statusOf } from './client.ts';
import type { Instance } from './instance.ts';
import { agentExit, agentLog } from './unit.ts';

const maxTailBytes = 8192;

/** What systemd writes if it could not execute the program. */
const notExecuted = '203';

export interface Exit {
  cause: EndCause;
  /** What happened, in words that follow "The workspace's agent". */
  text: string;
  /** Whether the image could not even start Node. */
  isNotExecutable: boolean;
}

/** Reads a file of an instance; null if there is none, or it cannot be read now, as in a virtual machine that is off. */
async function readIn(
  client: IncusClient,
  { name, project }: Instance,
  file: string,
): Promise<string | null> {
  try {
    return await client.readFile(path`/1.0/instances/${name}/files`, { project, path: file });
  } catch (error) {
    if (statusOf(error) === undefined) throw error;
    return null;
  }
}

/** The last that the agent printed. */
export const logTail = async (client: IncusClient, instance: Instance): Promise<string> =>
  ((await readIn(client, instance, agentLog)) ?? '').slice(-maxTailBytes);

/** Why an instance that ran is stopped. */
export async function readExit(client: IncusClient, instance: Instance): Promise<Exit> {
  const said = await readIn(client, instance, agentExit);
  return explainExit(said, instance);
}

export function explainExit(said: string | null, { type, config }: Pick<Instance, 'type' | 'config'>): Exit {
  const [result, code, status, system] = (said ?? '').trim().split(' ');
  const isNotExecutable = status === notExecuted;
  const exit = (cause: EndCause, text: string): Exit => ({ cause, text, isNotExecutable });
  if (!result)
    return type === 'virtual-machine'
      ? exit('unknown', 'ended, or its virtual machine did')
      : exit(
          'node-restarted',
          'ended with its container: Incus or its machine was restarted, or it was stopped by force',
        );
  if (system === 'stopping') return exit('removed', 'ended because its instance was shut down, not by cde');
  if (result === 'oom-kill') {
    const limit = parseQuantity(config['limits.memory'] ?? '');
    return exit('out-of-memory', `ran out of memory${limit ? ` (limit ${formatQuantity(limit)})` : ''}`);
  }
  return exit(
    'agent-exited',
    code === 'exited' ? `exited with code ${status}` : `was killed by SIG${status}`,
  );
}
