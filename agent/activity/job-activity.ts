import { basename } from 'node:path';
import type { Activity } from './activity.ts';
import { type InputClassifier, makeInputClassifier } from './editor-input.ts';
import type { OpenTerminal } from './open-terminals.ts';
import { makeTypedFilter } from './terminal-input.ts';

/** Observes the input and output of a session's shell or command. */
export interface JobActivity {
  /** From the client. */
  input(chunk: Buffer): void;
  output(chunk: Buffer): void;
}

/**
 * Output of a command counts as work unless the client has sent something this shortly before: then it is an answer, as of an
 * editor's helper. Longer than the interval of any known heartbeat (Zed 5 s, JetBrains 10 s).
 */
const answerMs = 30_000;

/** Commands that transfer files through their stdin and stdout. */
const transferCommands = new Set([
  'rsync',
  'scp',
  'sftp-server',
  'tar',
  'git-upload-pack',
  'git-receive-pack',
]);

/** `command` is absent for login shells, `terminal` for jobs without a pty. `by` is the session's user. */
export function makeJobActivity(options: {
  activity: Activity;
  by: () => string | undefined;
  command?: string;
  terminal?: OpenTerminal;
}): JobActivity {
  const { activity, by, command, terminal } = options;
  const { now } = activity;
  const name = command === undefined ? undefined : commandName(command);
  let inputAt = Number.NEGATIVE_INFINITY;

  const isTyped = terminal && makeTypedFilter();
  const classifier: InputClassifier | undefined = terminal
    ? undefined
    : makeInputClassifier({ onInput: () => activity.record('editor-input', by()), isCommand: true, now });

  return {
    input(chunk) {
      inputAt = now();
      if (isTyped) {
        if (isTyped(chunk)) activity.record('terminal-input', by());
      } else if (name !== undefined && transferCommands.has(name)) activity.record('sync', name);
      else classifier!.upstream(chunk.length);
    },
    output() {
      if (name === undefined) return;
      if (transferCommands.has(name)) return activity.record('sync', name);
      classifier?.downstream();
      // What tmux, vim or top draw is not the output of a job.
      if (terminal?.isFullScreen || now() - inputAt < answerMs) return;
      activity.record('command-output', name);
    },
  };
}

/** The name of the program that a command line runs: a guess, because only a shell could parse it. */
function commandName(command: string): string {
  const words = command.trim().split(/\s+/);
  const first = words.find((word) => !/^(\w+=.*|exec|env|nohup|nice|time|sudo|command|-\S*)$/.test(word));
  const name = basename((first ?? '').replace(/^['"]|['"]$/g, ''));
  return /^[\w.+-]{1,60}$/.test(name) ? name : 'command';
}
