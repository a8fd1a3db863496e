import type { EndCause } from '../provider.ts';
import { type AgentExit, findAgentExit } from '../vm/agent-exit.ts';
import { codeOf, type Ec2Client } from './client.ts';

const maxConsoleBytes = 8_000;

/** Why EC2 says that an instance ended, and what that is to us. */
const reasons: [pattern: RegExp, cause: EndCause, text: string][] = [
  [/SpotInstance(Termination|Shutdown)/, 'preempted', 'ended because AWS reclaimed its spot instance'],
  [/ScheduledStop/, 'node-drained', 'ended because AWS retired the host of its instance'],
  [
    /InsufficientInstanceCapacity|InstanceLimit/,
    'node-refused',
    'could not run: AWS has no capacity for its instance',
  ],
  [
    /VolumeLimitExceeded|InvalidSnapshot|InvalidParameterValue/,
    'node-refused',
    'could not run: its instance has no valid volume',
  ],
  [/Server\.InternalError|Client\.InternalError/, 'node-lost', 'ended with the host of its instance'],
];

/** The end of what the instance wrote to its serial console. */
export async function consoleTail(client: Ec2Client, InstanceId: string): Promise<string> {
  const read = async (Latest: boolean) => {
    const { Output = '' } = await client.getConsoleOutput({ InstanceId, Latest });
    return Buffer.from(Output, 'base64').toString('utf8').replaceAll('\r', '').slice(-maxConsoleBytes).trim();
  };
  try {
    return await read(true).catch((error) => {
      // Instances on Xen have no latest output, but only that of their boot or end.
      if (codeOf(error) === undefined) throw error;
      return read(false);
    });
  } catch (error) {
    // It was terminated long ago.
    if (codeOf(error) === undefined) throw error;
    return '';
  }
}

/** Why an instance that ran has ended. `said`: its state reasons. */
export function explainEndOf(said: string, console: string): AgentExit {
  const end = (cause: EndCause, text: string): AgentExit => ({ cause, text, isNotExecutable: false });
  for (const [pattern, cause, text] of reasons) if (pattern.test(said)) return end(cause, text);
  const exit = findAgentExit(console);
  if (exit) return exit;
  if (/UserInitiated/i.test(said))
    return end('removed', 'ended because its instance was stopped or terminated, not by cde');
  if (/InstanceInitiated/i.test(said)) return end('unknown', 'ended with its machine, which shut down');
  return end('unknown', 'ended, or its machine did');
}
