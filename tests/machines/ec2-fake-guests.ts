import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { gunzipSync } from 'node:zlib';
import { EC2, type Instance } from '@aws-sdk/client-ec2';
import type { FaultyConnection } from '@cde/server/providers/conformance/walk-world.ts';
import type { BootPlan } from '@cde/server/providers/vm/user-data.ts';
import {
  consoleReply,
  type Ec2Reply,
  errorReply,
  onceForToken,
  terminateEach,
  withEncodedUserData,
} from './moto-gaps.ts';

const pollMs = 200;
const slowMs = 150;
const injected = 'injected by the test';

/** The credentials of moto, which takes any. */
export const fakeCredentials = { accessKeyId: 'test', secretAccessKey: 'test' };

interface Guest {
  plan: BootPlan;
  volume: string;
  isUp: boolean;
  console: string;
}

/**
 * Guests that only pretend: nothing boots. An instance that runs and has its home attached counts as a machine whose agent
 * has registered. They read the same user data as a real guest, and keep the files of homes by volume.
 */
export function makeFakeGuests(endpoint: string, installation: string) {
  const ec2 = new EC2({ region: 'eu-central-1', endpoint, credentials: fakeCredentials });
  const guests = new Map<string, Guest>();
  const files = new Map<string, Map<string, string>>();
  const registered = new Set<string>();
  let closed = false;
  let downConsole: string | null = null;

  async function instances(): Promise<Instance[]> {
    const { Reservations = [] } = await ec2.describeInstances({
      Filters: [{ Name: 'tag:cde:installation', Values: [installation] }],
    });
    return Reservations.flatMap(({ Instances = [] }) => Instances);
  }

  /** The files of a volume, copied if it was made from a snapshot. */
  async function homeOf(volume: string, mayFormat: boolean): Promise<Map<string, string> | null> {
    if (files.has(volume)) return files.get(volume)!;
    const tags = (await ec2.describeVolumes({ VolumeIds: [volume] })).Volumes?.[0]?.Tags;
    const from = tags?.find(({ Key }) => Key === 'cde:from')?.Value;
    const home = from !== undefined ? new Map(files.get(from)) : mayFormat ? new Map<string, string>() : null;
    if (home) files.set(volume, home);
    return home;
  }

  const powerOff = (id: string) => ec2.stopInstances({ InstanceIds: [id] });

  async function boot(instance: Instance): Promise<void> {
    const id = instance.InstanceId!;
    const build = instance.Tags?.find(({ Key }) => Key === 'cde:build')?.Value;
    const found = guests.get(id);
    if (found?.isUp && found.plan.build === build) return;
    const attribute = await ec2.describeInstanceAttribute({ InstanceId: id, Attribute: 'userData' });
    const data = Buffer.from(attribute.UserData?.Value ?? '', 'base64');
    const text = (data[0] === 0x1f ? gunzipSync(data) : data).toString('utf8');
    const plan = JSON.parse(JSON.parse(text.slice(text.indexOf('\n'))).bootcmd[0].at(-1)) as BootPlan;
    const volume = instance.BlockDeviceMappings?.map(({ Ebs }) => Ebs?.VolumeId).find(
      (each) => each?.replace('-', '') === plan.disk.serial,
    );
    if (volume === undefined) return;
    if (downConsole !== null) return void guests.set(id, { plan, volume, isUp: false, console: downConsole });
    const home = await homeOf(volume, plan.mayFormat);
    guests.set(id, { plan, volume, isUp: home !== null, console: '' });
    if (home) registered.add(plan.build);
    else {
      guests.get(id)!.console = '{"code":"home-lost","message":"The disk of the home has no file system."}';
      await powerOff(id);
    }
  }

  async function look(): Promise<void> {
    const all = await instances();
    for (const instance of all) {
      if (instance.State?.Name === 'running') await boot(instance);
      else {
        const guest = guests.get(instance.InstanceId!);
        if (guest) guest.isUp = false;
      }
    }
  }

  const looking = (async () => {
    while (!closed) {
      // Between two calls, an instance can be terminated.
      await look().catch(() => {});
      await delay(pollMs);
    }
  })();

  const runningOf = async (workspaceId: string) =>
    (await instances()).filter(
      ({ State, Tags }) =>
        State?.Name === 'running' &&
        Tags?.some(({ Key, Value }) => Key === 'cde:workspace' && Value === workspaceId),
    );

  return {
    ec2,
    instances,
    runningOf,
    hasRegistered: async (buildId: string) => registered.has(buildId),
    console: (instance: string) => guests.get(instance)?.console ?? '',
    isDown: () => [...guests.values()].some(({ isUp, console }) => !isUp && console === downConsole),
    /** From now on, guests do not get as far as their agent, and write this to their console. */
    keepDown(console: string) {
      downConsole = console;
    },
    /** As if someone had written zeros over the volume. */
    loseFiles: (volume: string) => files.delete(volume),
    /** The files of the home that a running workspace has mounted. */
    async homeOf(workspaceId: string): Promise<Map<string, string>> {
      const [instance] = await runningOf(workspaceId);
      const guest = guests.get(instance?.InstanceId ?? '');
      if (!guest?.isUp) throw new Error('The workspace does not run.');
      return files.get(guest.volume)!;
    },
    /** The agent is killed, and with it ends its machine. */
    async killAgent(workspaceId: string): Promise<void> {
      for (const { InstanceId } of await runningOf(workspaceId)) {
        const guest = guests.get(InstanceId!);
        if (guest) guest.console = 'booted\ncde-agent ended: signal killed KILL running\n';
        await powerOff(InstanceId!);
      }
    },
    async close() {
      closed = true;
      await looking;
      ec2.destroy();
    },
  };
}
export type FakeGuests = ReturnType<typeof makeFakeGuests>;

/** What EC2 does of itself and moto does not: client tokens, and the serial console. Shared by the connections of a scene. */
export function makeMissingParts(guests: FakeGuests) {
  const doOnce = onceForToken();
  return {
    reply: async (form: URLSearchParams, pass: () => Promise<Ec2Reply>): Promise<Ec2Reply> =>
      form.get('Action') === 'GetConsoleOutput'
        ? consoleReply(form.get('InstanceId')!, guests.console(form.get('InstanceId')!))
        : doOnce(form, pass),
  };
}

/**
 * A connection to EC2, which can be cut, slow or answer with errors. Each scene has an account of its own, because moto gets
 * slower with all that it remembers of one.
 */
export async function faultyEc2(
  { url: upstream, account }: { url: string; account: string },
  parts?: ReturnType<typeof makeMissingParts>,
): Promise<
  FaultyConnection & {
    url: string;
    calls: string[];
    refuse(action: string, code: string, times?: number): void;
  }
> {
  let mode: Parameters<FaultyConnection['set']>[0] = 'open';
  let callsLeft = Number.POSITIVE_INFINITY;
  let isDead = false;
  const calls: string[] = [];
  const refusals = new Map<string, { code: string; times: number }>();

  const pass = (body: Buffer, headers: IncomingMessage['headers']) =>
    new Promise<Ec2Reply>((resolve, reject) => {
      const sent = request(
        upstream,
        {
          method: 'POST',
          headers: { ...headers, 'content-length': body.length, 'x-moto-account-id': account },
        },
        async (reply) => {
          const chunks: Buffer[] = [];
          for await (const chunk of reply) chunks.push(chunk as Buffer);
          resolve({ status: reply.statusCode!, text: Buffer.concat(chunks).toString() });
        },
      );
      sent.on('error', reject).end(body);
    });

  async function answer(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    const form = new URLSearchParams(body.toString());
    const action = form.get('Action') ?? '';
    calls.push(action);
    if (!isDead && callsLeft-- <= 0) isDead = true;
    if (isDead || mode === 'cut') return void incoming.socket.destroy();
    if (mode === 'slow') await delay(slowMs);
    const end = ({ status, text }: Ec2Reply) =>
      outgoing.writeHead(status, { 'content-type': 'text/xml' }).end(text);
    const refused = refusals.get(action);
    if (refused && refused.times-- > 0) {
      const status = refused.code === 'RequestLimitExceeded' ? 503 : 400;
      return void end({ status, text: errorReply(refused.code, injected) });
    }
    if (mode === 'error') return void end({ status: 500, text: errorReply('InternalError', injected) });
    const passOn = () =>
      action === 'TerminateInstances'
        ? terminateEach(form, (one) => pass(Buffer.from(one.toString()), incoming.headers))
        : pass(withEncodedUserData(form, body), incoming.headers);
    const reply = await (parts ? parts.reply(form, passOn) : passOn());
    // Killed meanwhile: what was asked for is done, but nobody learns of it.
    if (isDead) return void incoming.socket.destroy();
    end(reply);
  }

  const server = createServer((incoming, outgoing) => {
    answer(incoming, outgoing).catch(() => incoming.socket.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    calls,
    refuse: (action, code, times = Number.POSITIVE_INFINITY) => void refusals.set(action, { code, times }),
    set(next) {
      mode = next;
    },
    dieAfter(count) {
      callsLeft = count;
    },
    get isDead() {
      return isDead;
    },
    async close() {
      server.closeAllConnections();
      server.close();
    },
  };
}
