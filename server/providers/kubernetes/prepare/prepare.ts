/**
 * The second init container, in the workspace's own image: makes the home fit for the developer, gives it the
 * image's new dotfiles, and makes the /etc in which the developer is a user.
 *
 * usage: /opt/cde/node /opt/cde/prepare.mjs, with CDE_PREPARE = a Plan as JSON
 */
import { existsSync, writeFileSync } from 'node:fs';
import { chmod, lchown, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type DeliveredFiles, deliverSkeleton } from '../../skeleton.ts';
import { copyEtc } from './etc.ts';
import type { Plan } from './plan.ts';
import {
  type Developer,
  groupWith,
  passwdWith,
  rangesWith,
  readUsers,
  shadowWith,
  sudoersFor,
  type User,
} from './users.ts';

/** The best first. */
const shells = [
  '/bin/bash',
  '/usr/bin/bash',
  '/usr/local/bin/bash',
  '/bin/zsh',
  '/usr/bin/zsh',
  '/bin/ash',
  '/bin/sh',
  '/usr/bin/sh',
];

const plan = JSON.parse(process.env.CDE_PREPARE!) as Plan;
const isRoot = process.getuid!() === 0;
const log = (text: string) => void process.stdout.write(`${text}\n`);

/** Ends with a code and a sentence where the control plane reads them. */
function fail(code: string, message: string): never {
  const text = JSON.stringify({ code, message });
  try {
    writeFileSync('/dev/termination-log', text);
  } catch {
    // Then the log has it.
  }
  log(text);
  process.exit(3);
}

async function makeEtc(developer: Developer, image: User | undefined): Promise<void> {
  const read = (name: string) => readFile(join('/etc', name), 'utf8').catch(() => '');
  // Started from scratch each time: an earlier attempt may have been interrupted.
  await rm(plan.etc, { recursive: true, force: true });
  if (plan.wholeEtc) await copyEtc('/etc', plan.etc, log);
  await mkdir(plan.etc, { recursive: true });
  const put = async (name: string, text: string, mode: number) => {
    const path = join(plan.etc, name);
    await mkdir(dirname(path), { recursive: true });
    await rm(path, { force: true });
    await writeFile(path, text);
    await chmod(path, mode);
  };
  await put(
    'passwd',
    passwdWith((await read('passwd')) || 'root:x:0:0:root:/root:/bin/sh\n', developer),
    0o644,
  );
  await put('group', groupWith((await read('group')) || 'root:x:0:\n', developer, image), 0o644);
  if (!plan.wholeEtc) return;
  if (existsSync('/etc/shadow') && developer.name !== 'root') {
    const { mode, uid, gid } = await stat('/etc/shadow');
    await put('shadow', shadowWith(await read('shadow'), developer.name), mode & 0o777);
    await lchown(join(plan.etc, 'shadow'), uid, gid);
  }
  for (const name of ['subuid', 'subgid'])
    if (existsSync(join('/etc', name)))
      await put(name, rangesWith(await read(name), developer.name, image), 0o644);
  const files = await readdir('/etc/sudoers.d').catch(() => []);
  const sudoers = [await read('sudoers')];
  for (const file of files) sudoers.push(await read(join('sudoers.d', file)));
  const granted = sudoersFor(sudoers, developer.name, image);
  if (granted) await put('sudoers.d/cde-developer', granted, 0o440);
}

async function makeHome({ uid, gid }: Developer): Promise<{ home: string; ours: string }> {
  const home = join(plan.volume, 'home');
  const ours = join(plan.volume, '.cde');
  try {
    await mkdir(home, { recursive: true });
    await mkdir(ours, { recursive: true, mode: 0o700 });
  } catch (error) {
    fail(
      'home-not-writable',
      `The home's volume cannot be written by user ${process.getuid!()}: ${(error as Error).message}. ` +
        'Its storage class has to honour fsGroup, or the template to choose another podSecurity than restricted and a user by number.',
    );
  }
  // The home itself, not what is in it: of a large one that would take minutes, at each start.
  if (isRoot && (await stat(home)).uid !== uid) {
    await lchown(home, uid, gid);
    await chmod(home, 0o755);
  }
  return { home, ours };
}

/** Dotfiles of /etc/skel, and of the home that the image's user has, where the first has none of the name. */
async function deliverDotfiles(
  { uid, gid }: Developer,
  image: User | undefined,
  { home, ours }: { home: string; ours: string },
): Promise<string[]> {
  const record = join(ours, 'delivered.json');
  let delivered = JSON.parse((await readFile(record, 'utf8').catch(() => '')) || '{}') as DeliveredFiles;
  const added: string[] = [];
  const theirs = image?.home ?? '/';
  const skeletons = ['/etc/skel', ...(/^\/(home|root|Users|opt)(\/|$)/.test(theirs) ? [theirs] : [])];
  for (const skeleton of skeletons) {
    if (!existsSync(skeleton) || skeleton === plan.home) continue;
    const result = await deliverSkeleton({
      skeleton,
      home,
      staging: join(ours, 'staging'),
      owner: isRoot ? { uid, gid } : null,
      delivered,
      ...(skeleton !== '/etc/skel' && { overlay: '/etc/skel' }),
      onError: log,
    });
    delivered = result.delivered;
    added.push(...result.added);
  }
  const draft = `${record}.new`;
  await writeFile(draft, JSON.stringify(delivered));
  await rename(draft, record);
  return added;
}

const shell = shells.find((path) => existsSync(path));
if (!shell)
  fail(
    'image-without-shell',
    'The image has no shell (bash, zsh, ash or sh), and nobody can work without one.',
  );
const uid = plan.uid ?? process.getuid!();
const image = readUsers(await readFile('/etc/passwd', 'utf8').catch(() => '')).find(
  (user) => user.uid === uid,
);
const developer: Developer = {
  name: plan.owner,
  uid,
  // As the pod has it: runAsGroup, where the number is the template's.
  gid: plan.uid ?? process.getgid!(),
  home: plan.home,
  shell: shell!,
};
await makeEtc(developer, image);
const folders = await makeHome(developer);
let added: string[] = [];
try {
  added = await deliverDotfiles(developer, image, folders);
} catch (error) {
  // A home that is full has to be entered all the same, if only to make room.
  log(`dotfiles were not delivered: ${(error as Error).message}`);
}
log(
  `home ready for user ${uid}${added.length > 0 ? `; new dotfiles: ${[...new Set(added)].join(', ')}` : ''}`,
);
