/**
 * The second init container, in the workspace's own image: makes the home fit for the developer, gives it the
 * image's new dotfiles, and makes the /etc in which the developer is a user.
 *
 * usage: /opt/cde/node /opt/cde/prepare.mjs, with CDE_PREPARE = a Plan as JSON
 */
import { writeFileSync } from 'node:fs';
import { chmod, lchown, mkdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { deliverDotfiles } from '../../prepare/dotfiles.ts';
import { findShell, writeEtcUsers } from '../../prepare/etc-users.ts';
import { type Developer, readUsers, type User } from '../../prepare/users.ts';
import { copyEtc } from './etc.ts';
import type { Plan } from './plan.ts';

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
  // Started from scratch each time: an earlier attempt may have been interrupted.
  await rm(plan.etc, { recursive: true, force: true });
  if (plan.wholeEtc) await copyEtc('/etc', plan.etc, log);
  await mkdir(plan.etc, { recursive: true });
  await writeEtcUsers(plan.etc, { developer, image, all: plan.wholeEtc });
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

const shell = findShell();
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
  added = await deliverDotfiles({
    ...folders,
    owner: isRoot ? developer : null,
    image,
    log,
    mountedAt: plan.home,
  });
} catch (error) {
  // A home that is full has to be entered all the same, if only to make room.
  log(`dotfiles were not delivered: ${(error as Error).message}`);
}
log(`home ready for user ${uid}${added.length > 0 ? `; new dotfiles: ${added.join(', ')}` : ''}`);
