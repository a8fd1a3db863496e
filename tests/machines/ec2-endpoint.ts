import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { consoleOf, type Ec2Instances, type Machine } from './ec2-instances.ts';
import { consoleReply, type Ec2Reply, errorReply, onceForToken, withEncodedUserData } from './moto-gaps.ts';

/** EC2's numbers of the states that moto passes through at once. */
const transitional = { pending: 0, 'shutting-down': 32, stopping: 64 } as const;

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

function stateOf({ phase, guest }: Machine, moto: string): keyof typeof transitional | null {
  if (moto === 'running' && phase === 'pending') return 'pending';
  if (!guest) return null;
  return moto === 'stopped' ? 'stopping' : moto === 'terminated' ? 'shutting-down' : null;
}

/** The states of instances as their guests are, which take their time where moto's do not. */
function withGuests(text: string, { machines }: Ec2Instances): string {
  const states = text.replace(
    /<instanceId>(i-\w+)<\/instanceId>(.*?)<instanceState><code>\d+<\/code><name>([\w-]+)<\/name><\/instanceState>/gs,
    (all, id: string, between: string, moto: string) => {
      const machine = machines.get(id);
      const state = machine && stateOf(machine, moto);
      if (!state) return all;
      return `<instanceId>${id}</instanceId>${between}<instanceState><code>${transitional[state]}</code><name>${state}</name></instanceState>`;
    },
  );
  return states.replace(
    /<stateReason>((?:(?!<stateReason>).)*?)<\/stateReason>((?:(?!<stateReason>).)*?<instanceId>(i-\w+)<\/instanceId>)/gs,
    (all, _reason: string, rest: string, id: string) => {
      if (!machines.get(id)?.endedItself) return all;
      const code = 'Client.InstanceInitiatedShutdown';
      return `<stateReason><code>${code}</code><message>${code}: Instance initiated shutdown</message></stateReason>${rest}`;
    },
  );
}

/** EC2's API: moto's, with what moto lacks of EC2 and of the guests that stand for its instances. */
export async function serveEc2(moto: string, instances: Ec2Instances) {
  const doOnce = onceForToken();

  async function pass(request: IncomingMessage, given: Buffer, values: URLSearchParams): Promise<Ec2Reply> {
    const action = values.get('Action') ?? '';
    const body = withEncodedUserData(values, given);
    const answer = await fetch(`${moto}${request.url}`, {
      method: request.method ?? 'POST',
      headers: {
        'content-type': request.headers['content-type'] ?? '',
        authorization: request.headers.authorization ?? '',
      },
      ...(body.length > 0 && { body: new Uint8Array(body) }),
    });
    const text = await answer.text();
    if (/^(Describe|Get)/.test(action)) return { status: answer.status, text: withGuests(text, instances) };
    const snapshot = /<snapshotId>(snap-\w+)</.exec(text)?.[1];
    if (action === 'CreateSnapshot' && snapshot)
      await instances.copyToSnapshot(snapshot, values.get('VolumeId')!);
    await instances.sync().catch(() => {});
    return { status: answer.status, text };
  }

  function ownReply(values: URLSearchParams): Ec2Reply | null {
    const id = values.get('InstanceId') ?? '';
    const machine = instances.machines.get(id);
    const action = values.get('Action');
    if (!machine) return null;
    if (action === 'GetConsoleOutput') return consoleReply(id, consoleOf(machine));
    if (action === 'AttachVolume' && machine.phase !== 'running' && machine.phase !== 'off')
      return { status: 400, text: errorReply('IncorrectState', `Instance '${id}' is not 'running'.`) };
    return null;
  }

  const server = createServer(async (request, reply) => {
    try {
      const body = await bodyOf(request);
      const values = new URLSearchParams(body.toString());
      const { status, text } = ownReply(values) ?? (await doOnce(values, () => pass(request, body, values)));
      reply.writeHead(status, { 'content-type': 'text/xml' }).end(text);
    } catch {
      reply.destroy();
    }
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}
