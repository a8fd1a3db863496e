import { createHash } from 'node:crypto';
import { lstat, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Rules } from '@cde/filesync/rules.ts';
import { TreeError } from '@cde/filesync/tree.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure } from '../failure/failure.ts';
import { defaultRules } from './names.ts';
import type { RuleMarks } from './rule-marks.ts';

const maxRulesBytes = 256 * 1024;
/**
 * Editors empty or remove a file for a moment when they save it. Applied in that moment, rules would let out what they
 * exclude: so a change counts once it has stayed the same for this long.
 */
const settleMs = 500;
/** A file that keeps changing is not waited for any longer; the rules from before stay in force until the next round. */
const maxReads = 6;

interface RuleFile {
  lines: readonly string[];
  /** Null: there is none. */
  found: { hash: string; mtimeNs: bigint } | null;
}

/** Reads the rules of a sync from this machine's own files, again for each round: a saved change counts at once. */
export function makeRuleReader(
  root: string,
  input: { gitignore: boolean; git: boolean; ignore: readonly string[] },
  marks: RuleMarks,
  wait: (ms: number) => Promise<unknown> = delay,
): () => Promise<Rules> {
  const applied = new Map<string, RuleFile>();

  async function linesOf(name: string): Promise<readonly string[]> {
    const path = join(root, name);
    const before = applied.get(name);
    let now = await readRuleFile(path);
    for (let reads = 0; before && !isSame(now, before); reads += 1) {
      if (reads === maxReads) return before.lines;
      await wait(settleMs);
      const again = await readRuleFile(path);
      const isSettled = again.found?.hash === now.found?.hash;
      now = again;
      if (isSettled) break;
    }
    if (name === '.gitignore' && !before && marks.isFromWorkspace(path, now.found))
      throw fromWorkspace(path, now.found === null);
    if (name === '.gitignore' && before && !isSame(now, before) && marks.isFromWorkspace(path, now.found))
      // Another sync of a folder around this one brought it.
      return before.lines;
    applied.set(name, now);
    return now.lines;
  }

  return async () => ({
    lines: [
      ...defaultRules,
      ...(input.gitignore ? await linesOf('.gitignore') : []),
      ...(await linesOf('.cdeignore')),
      ...input.ignore,
    ],
    git: input.git,
  });
}

const isSame = (one: RuleFile, other: RuleFile) =>
  one.found?.hash === other.found?.hash && one.found?.mtimeNs === other.found?.mtimeNs;

async function readRuleFile(path: string): Promise<RuleFile> {
  try {
    const { mtimeNs, size, ...stats } = await lstat(path, { bigint: true });
    // A link could have been put there by the other side.
    if ((stats.mode & 0o170000n) !== 0o100000n) throw new Error('it is not a regular file');
    if (size > maxRulesBytes) throw new Error(`it is larger than ${maxRulesBytes / 1024} KiB`);
    const content = await readFile(path);
    const hash = createHash('sha256').update(content).digest('base64url');
    return { lines: content.toString('utf8').split(/\r?\n/), found: { hash, mtimeNs } };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { lines: [], found: null };
    // Without its rules what they exclude, a key for example, would be copied.
    throw new TreeError(
      'failed',
      `${path} says what is left out and cannot be read: ${(error as Error).message}`,
    );
  }
}

function fromWorkspace(path: string, isRemoved: boolean): Failure {
  return new Failure(
    'sync-rules-from-workspace',
    isRemoved
      ? `${path} was deleted by a workspace, not by you.`
      : `${path} was last written by a workspace, not by you.`,
    {
      exitCode: exitCodes.conflict,
      detail: 'With --gitignore it decides which files leave this machine, so nothing was copied.',
      hint: isRemoved
        ? `Restore it, or make an empty one: touch ${path}`
        : `Check what it excludes, then make it yours: touch ${path}`,
    },
  );
}
