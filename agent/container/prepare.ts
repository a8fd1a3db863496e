/**
 * The second init container, in the workspace's own image: makes the home fit for the developer, gives it the
 * image's new dotfiles, and writes /etc/passwd and /etc/group with the developer in them.
 *
 * usage: /opt/cde/node /opt/cde/prepare.mjs, with CDE_PREPARE = {"owner", "uid", "volume", "home", "etc"}
 */
import { existsSync, writeFileSync } from 'node:fs';
import { chmod, chown, mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Delivered, deliverSkeleton } from './skeleton.ts';

interface Plan {
  owner: string;
  /** Null: whoever the image says. */
  uid: number | null;
  /** Where the volume is mounted as a whole: `home` is in it, and `.cde` for us. */
  volume: string;
  /** Where the home will be mounted. */
  home: string;
  /** Where passwd and group are written for the workspace's container. */
  etc: string;
}

interface Entry {
  name: string;
  uid: number;
  gid: number;
  home: string;
  line: string;
}

/** Ends with a code and a sentence where the control plane reads them. */
function refuse(code: string, message: string): never {
  const text = JSON.stringify({ code, message });
  try {
    writeFileSync('/dev/termination-log', text);
  } catch {
    // Then the log has it.
  }
  process.stdout.write(`${text}\n`);
  process.exit(3);
}

const shells = [
  '/bin/bash',
  '/usr/bin/bash',
  '/bin/zsh',
  '/usr/bin/zsh',
  '/bin/ash',
  '/bin/sh',
  '/usr/bin/sh',
];

const plan = JSON.parse(process.env.CDE_PREPARE!) as Plan;
const shell = shells.find((path) => existsSync(path));
if (!shell)
  refuse(
    'image-without-shell',
    'The image has no shell (bash, zsh, ash or sh), and nobody can work without one.',
  );

const root = process.getuid!() === 0;
const passwd = await readFile('/etc/passwd', 'utf8').catch(() => 'root:x:0:0:root:/root:/bin/sh\n');
const group = await readFile('/etc/group', 'utf8').catch(() => 'root:x:0:\n');
const entries: Entry[] = passwd.split('\n').flatMap((line) => {
  const [name, , uid, gid, , home] = line.split(':');
  return name && uid !== undefined
    ? [{ name, uid: Number(uid), gid: Number(gid), home: home ?? '', line }]
    : [];
});

const uid = plan.uid ?? process.getuid!();
const image = entries.find((entry) => entry.uid === uid);
const gid = image?.gid ?? (uid === 0 ? 0 : uid);

// The developer takes the place of the image's user of the same number, so that files keep a name.
const others = entries
  .filter((entry) => entry.uid !== uid && entry.name !== plan.owner)
  .map(({ line }) => line);
const kept = uid === 0 ? entries.filter(({ uid }) => uid !== 0).map(({ line }) => line) : others;
const lines = [
  ...(uid === 0 ? [`root:x:0:0:root:${plan.home}:${shell}`] : []),
  ...kept.filter((line) => uid !== 0 || !line.startsWith('root:')),
  ...(uid === 0 && plan.owner === 'root'
    ? []
    : [`${plan.owner}:x:${uid}:${gid}:${plan.owner}:${plan.home}:${shell}`]),
];
const groups = group.split('\n').filter((line) => line && !line.startsWith(`${plan.owner}:`));
// The image's user's memberships pass on.
const members = groups.map((line) => {
  const [name, x, id, list = ''] = line.split(':');
  const names = list.split(',').filter(Boolean);
  return image && names.includes(image.name) && image.name !== plan.owner
    ? [name, x, id, [...names, plan.owner].join(',')].join(':')
    : line;
});
if (!groups.some((line) => line.split(':')[2] === String(gid))) members.push(`${plan.owner}:x:${gid}:`);
await mkdir(plan.etc, { recursive: true });
await writeFile(join(plan.etc, 'passwd'), `${lines.join('\n')}\n`);
await writeFile(join(plan.etc, 'group'), `${members.join('\n')}\n`);

const home = join(plan.volume, 'home');
const ours = join(plan.volume, '.cde');
try {
  await mkdir(home, { recursive: true });
  await mkdir(ours, { recursive: true });
} catch (error) {
  refuse(
    'home-not-writable',
    `The home's volume cannot be written by user ${process.getuid!()}: ${(error as Error).message}. The storage class has to honour fsGroup, or podSecurity must not be restricted.`,
  );
}
if (root) {
  await chmod(ours, 0o700);
  // The home itself, not what is in it: on a large home that would take minutes, at each start.
  if ((await stat(home)).uid !== uid) {
    await chown(home, uid, gid);
    await chmod(home, 0o755);
  }
}

const record = join(ours, 'delivered.json');
let delivered = JSON.parse(await readFile(record, 'utf8').catch(() => '{}')) as Delivered;
const added: string[] = [];
// The image's own home of its user as well, where /etc/skel has nothing of the name.
const skeletons = [
  '/etc/skel',
  ...(image && image.home !== '/' && !image.home.startsWith('/etc') ? [image.home] : []),
];
for (const skeleton of new Set(skeletons)) {
  if (!existsSync(skeleton) || skeleton === plan.home) continue;
  const result = await deliverSkeleton({
    skeleton,
    home,
    staging: join(ours, 'staging'),
    owner: root ? { uid, gid } : null,
    delivered,
    ...(skeleton !== '/etc/skel' && { under: '/etc/skel' }),
  });
  delivered = result.delivered;
  added.push(...result.added);
}
const draft = `${record}.new`;
await writeFile(draft, JSON.stringify(delivered));
await rename(draft, record);
process.stdout.write(
  `home ready for user ${uid}${added.length > 0 ? `; new dotfiles: ${[...new Set(added)].join(', ')}` : ''}\n`,
);
