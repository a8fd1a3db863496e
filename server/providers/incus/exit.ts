import { parseQuantity } from '../quantity.ts';
import { type AgentExit, explainAgentExit } from '../vm/agent-exit.ts';
import { agentExit, agentLog } from '../vm/unit.ts';
import { type IncusClient, path, statusOf } from './client.ts';
import type { Instance } from './instance.ts';

const maxTailBytes = 8192;

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
export async function readExit(client: IncusClient, instance: Instance): Promise<AgentExit> {
  const said = await readIn(client, instance, agentExit);
  return explainExit(said, instance);
}

export function explainExit(
  said: string | null,
  { type, config }: Pick<Instance, 'type' | 'config'>,
): AgentExit {
  if (said?.trim()) return explainAgentExit(said, parseQuantity(config['limits.memory'] ?? ''));
  return type === 'virtual-machine'
    ? { cause: 'unknown', text: 'ended, or its virtual machine did', isNotExecutable: false }
    : {
        cause: 'node-restarted',
        text: 'ended with its container: Incus or its machine was restarted, or it was stopped by force',
        isNotExecutable: false,
      };
}
