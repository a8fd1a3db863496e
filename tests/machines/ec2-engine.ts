import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EC2 } from '@aws-sdk/client-ec2';
import { requireLinuxRoot, requirePackages, SetupError } from '../cluster/machine.ts';
import { serveEc2 } from './ec2-endpoint.ts';
import { type AmiFiles, amiFiles, amiNames } from './ec2-image.ts';
import { type Ec2Instances, runInstances } from './ec2-instances.ts';
import { agentSocket } from './guest.ts';
import { runInGuest } from './guest-agent.ts';
import { startMoto } from './moto.ts';

/** moto's API needs a region and keys, and checks neither. */
export const ec2Settings = {
  region: 'us-east-1',
  credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
} as const;

export const makeEc2Client = (endpoint: string) => new EC2({ ...ec2Settings, endpoint });

/** EC2's API by moto, and a virtual machine for each of its instances. */
export interface TestEc2 {
  folder: string;
  url: string;
  instances: Ec2Instances;
  close(): Promise<void>;
}

const folderPrefix = 'cde-ec2-';
const pidFile = (folder: string) => join(folder, 'test.pid');
const readText = (file: string) => (existsSync(file) ? readFileSync(file, 'utf8') : '');

/** Removes what killed runs left. Their guests and moto died with them. */
function removeLeftovers(): void {
  for (const name of readdirSync(tmpdir())) {
    const folder = join(tmpdir(), name);
    if (!name.startsWith(folderPrefix)) continue;
    const pid = readText(pidFile(folder)).trim();
    if (pid !== '' && !existsSync(`/proc/${pid}`)) rmSync(folder, { recursive: true, force: true });
  }
}

export async function startEc2(files: AmiFiles): Promise<TestEc2> {
  removeLeftovers();
  const folder = mkdtempSync(join(tmpdir(), folderPrefix));
  writeFileSync(pidFile(folder), String(process.pid));
  const moto = await startMoto(folder);
  const client = makeEc2Client(moto.url);
  const Architecture = process.arch === 'arm64' ? 'arm64' : 'x86_64';
  for (const Name of Object.values(amiNames))
    await client.registerImage({
      Name,
      Architecture,
      RootDeviceName: '/dev/xvda',
      VirtualizationType: 'hvm',
    });
  const instances = runInstances({
    ...{ client, folder, files },
    onError: (error) => console.warn(`An instance of the tests: ${(error as Error).stack}`),
  });
  const endpoint = await serveEc2(moto.url, instances);
  return {
    folder,
    url: endpoint.url,
    instances,
    async close() {
      endpoint.close();
      await moto.close();
      await instances.close();
      client.destroy();
    },
  };
}

/**
 * Of this run, unless CDE_TEST_EC2 names another. If this machine cannot run guests, CDE_TEST_EC2_MISSING says why, and
 * the tests of it do.
 */
export default async function setup() {
  if (process.env.CDE_TEST_EC2) return;
  try {
    requireLinuxRoot();
    requirePackages('qemu-system-x86', 'qemu-utils', 'e2fsprogs', 'util-linux');
    const engine = await startEc2(await amiFiles());
    process.env.CDE_TEST_EC2 = JSON.stringify({ folder: engine.folder, url: engine.url });
    return () => engine.close();
  } catch (error) {
    const [line] = (error as Error).message.split('\n');
    process.env.CDE_TEST_EC2_MISSING = error instanceof SetupError ? line : `EC2 did not start: ${line}`;
  }
}

/** Null if there is none; then CDE_TEST_EC2_MISSING says why. */
export function testEc2() {
  const found = process.env.CDE_TEST_EC2;
  if (!found) return null;
  const { folder, url } = JSON.parse(found) as { folder: string; url: string };
  return {
    url,
    client: makeEc2Client(url),
    /** Runs a script in the instance's guest as root. */
    inside: (instanceId: string, script: string) =>
      runInGuest(agentSocket(join(folder, 'i', instanceId.slice(2, 12))), script),
  };
}
