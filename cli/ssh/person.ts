import { execFile } from 'node:child_process';
import { openSync, readFileSync, readlinkSync, writeSync } from 'node:fs';
import { ReadStream } from 'node:tty';
import { isYes } from '../command/ask.ts';
import { clean } from '../output/output.ts';

/** A person who has just typed `ssh web.cde` answers within this time; a window that nobody looks at does not. */
const answerMs = 60_000;

const withValue = new Set('BbcDEeFIiJLlmOoPpQRSWw');
const preventsShell = new Set('TNWfsnOGQV');

/**
 * Whether the words after `ssh` ask for a shell at a terminal. Editors, git, rsync and scp pass -T, -N, -W, BatchMode or a
 * command; a command counts as interactive only with -t.
 */
export function asksForShell(words: readonly string[]): boolean {
  let hasTty = false;
  let hasHost = false;
  for (let at = 0; at < words.length; at++) {
    const word = words[at]!;
    if (word === '--' && !hasHost) continue;
    if (!word.startsWith('-') || word === '-') {
      if (hasHost) return hasTty;
      hasHost = true;
      continue;
    }
    const letters = [...word.slice(1)];
    for (const [index, letter] of letters.entries()) {
      if (preventsShell.has(letter)) return false;
      if (letter === 't') hasTty = true;
      if (!withValue.has(letter)) continue;
      const value = index === letters.length - 1 ? (words[++at] ?? '') : letters.slice(index + 1).join('');
      if (
        letter === 'o' &&
        /^\s*(batchmode[\s=]+"?yes|requesttty[\s=]+"?no|sessiontype[\s=]+"?(none|subsystem)|remotecommand)/i.test(
          value,
        )
      )
        return false;
      break;
    }
  }
  return hasHost;
}

interface Process {
  words: string[];
  /** Its process group is the one that the terminal's keys go to. */
  isForeground: boolean;
}

/**
 * Whether a person has just typed the ssh that runs this process as its ProxyCommand. An editor that reconnects has pipes or
 * -T; where this cannot be told, the answer is no, because a workspace must not start by itself.
 */
export async function isTypedSsh(parent: number): Promise<boolean> {
  const found = process.platform === 'linux' ? fromProc(parent) : await fromPs(parent);
  if (!found) return false;
  const [program = '', ...args] = found.words;
  return /(^|\/)ssh$/.test(program) && found.isForeground && asksForShell(args);
}

function fromProc(pid: number): Process | null {
  try {
    // Its input must be a terminal: without one, a shell is not for a person who types.
    if (!/^\/dev\/(pts\/\d+|tty.*|console)$/.test(readlinkSync(`/proc/${pid}/fd/0`))) return null;
    // `pid (name) state ppid pgrp session tty tpgid …`; the name can contain anything.
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [, , group, , , foreground] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
    return { words, isForeground: group === foreground };
  } catch {
    return null;
  }
}

/** macOS and others. Arguments with spaces are split, which can only make the line look like one with a command. */
function fromPs(pid: number): Promise<Process | null> {
  return new Promise((resolve) =>
    execFile('ps', ['-o', 'pgid=,tpgid=,command=', '-p', String(pid)], (error, stdout) => {
      const match = /^\s*(\d+)\s+(-?\d+)\s+(.*)$/.exec(stdout.split('\n')[0] ?? '');
      if (error || !match) return resolve(null);
      resolve({ words: match[3]!.trim().split(/\s+/), isForeground: match[1] === match[2] });
    }),
  );
}

/** Asks on the terminal of this process, whatever its stdin and stdout are. No answer within a minute is a no. */
export async function askOnTerminal(question: string, signal: AbortSignal): Promise<boolean> {
  let file: number;
  try {
    file = openSync('/dev/tty', 'r+');
  } catch {
    return false;
  }
  const input = new ReadStream(file);
  let timer: NodeJS.Timeout | undefined;
  let giveUp = () => {};
  try {
    writeSync(file, `${clean(question)} [Y/n] `);
    return await new Promise<boolean>((resolve) => {
      giveUp = () => {
        writeSync(file, '\n');
        resolve(false);
      };
      if (signal.aborted) return giveUp();
      timer = setTimeout(giveUp, answerMs);
      signal.addEventListener('abort', giveUp, { once: true });
      input.once('data', (answer) => resolve(isYes(answer.toString('utf8'))));
      input.once('error', () => resolve(false));
      input.once('end', () => resolve(false));
    });
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', giveUp);
    // The file itself stays open: the stream may have taken it over, and a second close could hit another file.
    input.destroy();
  }
}
