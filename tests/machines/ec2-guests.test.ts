import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Volume } from '@aws-sdk/client-ec2';
import { afterEach, describe, expect, test } from 'vitest';
import { type Machine, makeMachine } from '../kit/machine.ts';
import { until } from '../kit/until.ts';
import { ec2Settings, testEc2 } from './ec2-engine.ts';
import { type AmiName, amiNames } from './ec2-image.ts';

const bed = testEc2();
const starter = join(import.meta.dirname, '../../templates/ec2');
/** Guests without hardware virtualisation need minutes on a machine that does much else. */
const dayMs = 3600_000;
const kernel = '  kernel: { sysctls: { fs.aio-max-nr: { atLeast: 1048577 }, vm.swappiness: 7 } }\n';

test.runIf(!bed)('this machine can run guests of EC2', (context) => {
  const missing = `No EC2: ${process.env.CDE_TEST_EC2_MISSING}`;
  // Elsewhere than in CI it is no fault that it cannot.
  if (process.env.CI) throw new Error(missing);
  context.skip(missing);
});

describe.skipIf(!bed)('EC2 with guests that boot', () => {
  const { client, url } = bed ?? ({} as NonNullable<typeof bed>);
  const amiOf = async (name: AmiName) =>
    (await client.describeImages({ Filters: [{ Name: 'name', Values: [name] }] })).Images![0]!.ImageId!;
  const instances = async () =>
    (await client.describeInstances({})).Reservations!.flatMap(({ Instances = [] }) => Instances);
  const homes = async (): Promise<Volume[]> =>
    (await client.describeVolumes({ Filters: [{ Name: 'tag:cde:role', Values: ['home'] }] })).Volumes!;
  const consoleOf = async (id: string) =>
    Buffer.from((await client.getConsoleOutput({ InstanceId: id })).Output ?? '', 'base64').toString();

  let machine: Machine | undefined;
  afterEach(async () => {
    await machine?.remove();
    machine = undefined;
    const left = (await instances()).filter(({ State }) => State?.Name !== 'terminated');
    if (left.length > 0)
      await client.terminateInstances({ InstanceIds: left.map(({ InstanceId }) => InstanceId!) });
    await until(
      async () => (await instances()).every(({ State }) => State?.Name === 'terminated'),
      'the end of all guests',
    );
    for (const { VolumeId } of await homes()) await client.deleteVolume({ VolumeId: VolumeId! });
  });

  test(
    "a developer's day: create, command, stop, start on a newer image, delete, restore",
    { timeout: dayMs },
    async () => {
      machine = await makeMachine({
        CDE_LOCAL_PROVIDER: 'off',
        CDE_EC2: ec2Settings.region,
        CDE_EC2_ENDPOINT: url,
        AWS_ACCESS_KEY_ID: 'test',
        AWS_SECRET_ACCESS_KEY: 'test',
      });
      // The loopback of this machine, as guests see it.
      machine.env.CDE_REPLICA_URL = `http://10.0.2.2:${machine.env.CDE_LISTEN!.split(':')[1]}`;
      await mkdir(machine.env.HOME!, { recursive: true });
      await machine.start();
      const cde = async (...args: string[]) => {
        const ran = await machine!.cde(...args);
        if (ran.code !== 0) throw new Error(`cde ${args.join(' ')}: ${ran.stdout}${ran.stderr}`);
        return ran.stdout;
      };
      const ssh = (script: string, name = 'web') => cde('ssh', name, '--', script);
      await cde('template', 'push', starter);
      const settings = ['-p', 'instance_type=t3.medium', '-p', 'home=10'];
      await cde('create', 'web', '-t', 'ec2', '-p', `image=${await amiOf(amiNames.debian)}`, ...settings);

      const sum =
        'cd ~; find data -type f -exec sha256sum {} + | sort; stat -c "%n %a %u %h %s" data/* | sort; cat .image-version .bashrc';
      const write =
        'cd ~; echo mine >> .bashrc; mkdir data; head -c 3000000 /dev/urandom > data/large; ln data/large data/hard; ln -s large data/soft; echo x > "data/a b"; chmod 4711 "data/a b"';
      expect(await ssh('id -u; hostname; sudo -n id -u; cat welcome.txt')).toMatch(
        /^1000\nweb\n0\nWelcome to \w+\/web\./,
      );
      const before = await ssh(`${write}; ${sum}`);
      expect(before).toContain('12\nexport IMAGE_DOTFILES=12\nmine\n');

      const [first] = (await instances()).filter(({ State }) => State?.Name === 'running');
      const [home] = await homes();
      await cde('stop', 'web');
      expect(await consoleOf(first!.InstanceId!)).toContain('Power down');
      expect(await homes()).toMatchObject([{ VolumeId: home!.VolumeId, State: 'available' }]);
      const version = join(machine.folder, 'ec2');
      await mkdir(version);
      const text = await readFile(join(starter, 'template.yaml'), 'utf8');
      await writeFile(join(version, 'template.yaml'), text.replace('ec2:\n', `ec2:\n${kernel}`));
      await cde('template', 'push', version);
      await cde('update', 'web', '-p', `image=${await amiOf(amiNames.debianNewer)}`);
      expect(await ssh(`${sum}; cat .vimrc`)).toBe(
        `${before.replace('12\nexport', '12b\nexport')}set number\n`,
      );
      const swappiness = 'cat /proc/sys/vm/swappiness';
      expect(await ssh(`cat /proc/sys/fs/aio-max-nr; ${swappiness}`)).toBe('1048577\n7\n');
      await ssh('sudo -n sysctl -q -w vm.swappiness=60');
      await until(
        () => ssh(swappiness),
        (value) => value === '7\n',
      );

      await cde('delete', 'web', '--yes');
      expect((await instances()).filter(({ State }) => State?.Name === 'running')).toEqual([]);
      await cde(
        'create',
        'again',
        '-t',
        'ec2',
        '--home',
        'web',
        ...settings,
        '-p',
        `image=${await amiOf(amiNames.debian)}`,
      );
      expect(await ssh(sum, 'again')).toContain(before.split('\n')[0]!);
      expect(await homes()).toMatchObject([{ VolumeId: home!.VolumeId }]);
      await cde('delete', 'again', '--yes', '--discard-home');
      expect(await homes()).toEqual([]);
    },
  );

  test('an instance that does not boot shows why', async () => {
    const { Instances = [] } = await client.runInstances({
      ...{ ImageId: await amiOf(amiNames.unbootable), InstanceType: 't3.small', MinCount: 1, MaxCount: 1 },
    });
    const id = Instances[0]!.InstanceId!;
    await until(async () => (await consoleOf(id)).includes('Unable to mount root'), 'the console');
    expect((await instances()).find(({ InstanceId }) => InstanceId === id)?.State?.Name).toBe('running');
  });
});
