/**
 * The first program of a workspace's container, or of the agent's unit in an instance, as root: makes the developer a user of the image and the owner of the home,
 * becomes that user, delivers dotfiles, and lets the agent take its place.
 *
 * usage: /opt/cde/node /opt/cde/enter.mjs, with CDE_ENTER = an EnterPlan as JSON
 */
import { closeSync, openSync, unlinkSync } from 'node:fs';
import { chmod, lchown, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { deliverDotfiles } from './dotfiles.ts';
import { type EnterPlan, enteredLine, tokenFile } from './enter-plan.ts';
import { findShell, writeEtcUsers } from './etc-users.ts';
import { setHostname } from './hostname.ts';
import { type Developer, readUsers, sudoersForAll } from './users.ts';

const plan = JSON.parse(process.env.CDE_ENTER!) as EnterPlan;
const log = (text: string) => void process.stdout.write(`${text}\n`);

/** Ends with a code and a sentence, which the server finds in the container's log. */
function fail(code: string, message: string): never {
  log(JSON.stringify({ code, message }));
  process.exit(3);
}

const users = readUsers(await readFile('/etc/passwd', 'utf8').catch(() => ''));
const [userName, groupName] = plan.user.split(':') as [string, string?];
const image = users.find((user) => user.name === userName || String(user.uid) === userName);
const uid = image?.uid ?? Number(userName);
if (!Number.isInteger(uid))
  fail('image-user-missing', `The image's user ${userName} is not in its /etc/passwd.`);
const shell = findShell();
if (!shell)
  fail(
    'image-without-shell',
    'The image has no shell (bash, zsh, ash or sh), and nobody can work without one.',
  );
const gid = /^\d+$/.test(groupName ?? '') ? Number(groupName) : (image?.gid ?? uid);
const developer: Developer = { name: plan.owner, uid, gid, home: plan.home, shell: shell! };
await writeEtcUsers('/etc', { developer, image, all: true });
// The home itself, not what is in it: of a large one that would take minutes, at each start.
if ((await stat(plan.home)).uid !== uid) {
  await lchown(plan.home, uid, gid);
  await chmod(plan.home, 0o755);
}
if (plan.hostname) await setHostname('/', plan.hostname);
if (plan.hasSudo) {
  await mkdir('/etc/sudoers.d', { recursive: true });
  await writeFile('/etc/sudoers.d/90-cde', sudoersForAll(plan.owner), { mode: 0o440 });
}

let token: number;
try {
  // Opened as the standard input, which the agent reads it from; nobody else finds it.
  closeSync(0);
  token = openSync(join('/', tokenFile), 'r');
  unlinkSync(join('/', tokenFile));
} catch {
  fail(
    'agent-died',
    'The workspace was started without a token for its agent. Only the server can start it.',
  );
}
if (token! !== 0) fail('agent-died', `The token was opened as file ${token!}.`);

// Missing in Node's types.
(process as unknown as { initgroups(user: string, group: number): void }).initgroups(plan.owner, gid);
process.setgid!(gid);
process.setuid!(uid);
process.chdir(plan.home);
try {
  const ours = join(plan.home, '.local/state/cde');
  await mkdir(ours, { recursive: true, mode: 0o700 });
  const added = await deliverDotfiles({ home: plan.home, ours, owner: null, image, log });
  if (added.length > 0) log(`new dotfiles: ${added.join(', ')}`);
} catch (error) {
  // A home that is full has to be entered all the same, if only to make room.
  log(`dotfiles were not delivered: ${(error as Error).message}`);
}
const { CDE_ENTER: _, ...environment } = process.env;
log(enteredLine);
process.execve!(
  process.execPath,
  [process.execPath, join(dirname(fileURLToPath(import.meta.url)), 'agent.mjs')],
  environment as NodeJS.ProcessEnv,
);
