import { join, posix } from 'node:path';
import type { Context } from '../context.ts';
import { clean } from '../output.ts';
import { bytes } from '../sizes.ts';
import type { SyncEvent } from './engine.ts';
import type { Action, SideName } from './reconcile.ts';
import type { Pair, Status } from './state.ts';

/** More than that at once are told as a number, not one by one. */
const maxListedActions = 20;
/** The other side may make up any number of problems; those beyond are counted. */
const maxProblemLines = 200;
/** Actions come in bursts: how long to collect before they are told. */
const collectMs = 200;

const arrow: Record<SideName, string> = { local: '←', remote: '→' };

/** Says what a sync does: lines for a person, or a JSON object for each event. */
export function makeReporter({ out }: Context, pair: Pair, status: Status) {
  let waiting: Action[] = [];
  let timer: NodeJS.Timeout | undefined;
  let problemLines = 0;

  function flush(): void {
    clearTimeout(timer);
    timer = undefined;
    const actions = waiting;
    waiting = [];
    if (actions.length <= maxListedActions) for (const action of actions) out.print(lineOf(action));
    else
      for (const side of ['remote', 'local'] as const) {
        const mine = actions.filter((action) => action.side === side);
        const removed = mine.filter((action) => action.do === 'remove').length;
        const size = mine.reduce((sum, action) => sum + (action.do === 'copy' ? action.entry.size : 0), 0);
        if (mine.length > 0)
          out.print(
            `${arrow[side]} ${mine.length - removed} changed (${bytes(size)})${removed ? `, ${removed} removed` : ''}`,
          );
      }
  }

  return {
    begin({ dryRun, once }: { dryRun: boolean; once: boolean }): void {
      const { local, workspace, remote } = pair;
      if (out.json) {
        if (!dryRun) out.printJsonLine({ event: 'begin', local, workspace, remote });
      } else if (!dryRun)
        out.note(
          `${local} ↔ ${workspace}:${remote}${once ? '' : ', until Ctrl-C'}. → to the workspace, ← from it.`,
        );
    },
    tell(event: SyncEvent): void {
      if (event.event === 'settled') {
        problemLines = 0;
        status.state = 'settled';
        status.files = event.files;
        status.problems = event.problems;
      } else status.state = 'syncing';
      if (event.event === 'problem') status.problems += 1;
      if (out.json) {
        out.printJsonLine(event.event === 'change' ? jsonOf(event.action) : event);
        return;
      }
      if (event.event === 'change') {
        waiting.push(event.action);
        timer ??= setTimeout(flush, collectMs);
        return;
      }
      flush();
      if (['problem', 'left-out', 'rules'].includes(event.event)) {
        problemLines += 1;
        if (problemLines === maxProblemLines + 1)
          out.note('More paths have a problem; --json names all of them.');
        if (problemLines > maxProblemLines) return;
      }
      if (event.event === 'conflict')
        out.print(
          `! ${clean(event.path)}: changed on both sides; the workspace's version is ${clean(event.kept)}`,
        );
      else if (event.event === 'rules') out.note(rulesLine(event, pair));
      else if (event.event === 'problem' || event.event === 'left-out')
        out.note(
          clean(
            `${event.side === 'local' ? 'here' : pair.workspace}: ${event.path}: ${event.message} [${event.code}]`,
          ),
        );
    },
    /** Of a dry run. */
    plan(actions: Action[]): void {
      if (out.json) for (const action of actions) out.printJsonLine({ ...jsonOf(action), event: 'would' });
      else if (actions.length === 0) out.print('Both are the same.');
      else for (const action of actions) out.print(lineOf(action));
    },
    lost(): void {
      if (out.json) out.printJsonLine({ event: 'lost' });
    },
    again(): void {
      if (out.json) out.printJsonLine({ event: 'connected' });
    },
    end: flush,
  };
}

const changes = { added: 'was made', changed: 'was changed', removed: 'was deleted' } as const;

/** Why a rule file differs, and how to take the workspace's version over. */
function rulesLine({ path, change }: SyncEvent & { event: 'rules' }, pair: Pair): string {
  const [file, target] = [posix.join(pair.remote, path), join(pair.local, path)];
  return clean(
    `! ${path} ${changes[change]} in the workspace. It decides what leaves this machine, so it is not taken from there: ` +
      (change === 'removed'
        ? `yours still applies. To do without it: rm ${shellWord(target)}`
        : `only yours applies. To use the workspace's: cde cp ${shellWord(`${pair.workspace}:${file}`)} ${shellWord(target)}`),
  );
}

/** A word that a shell takes as it is, for a command that somebody copies: names come from the workspace. */
const shellWord = (text: string) =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

function lineOf(action: Action): string {
  const path = clean(action.path);
  switch (action.do) {
    case 'remove':
      return `${arrow[action.side]} ${path} removed`;
    case 'folder':
      return `${arrow[action.side]} ${path}/`;
    case 'rename':
      return `! ${path} becomes ${clean(action.to)} in the workspace`;
    case 'mode':
      return `${arrow[action.side]} ${path} ${action.entry.executable ? 'may be run' : 'may not be run'}`;
    default:
      return `${arrow[action.side]} ${path}`;
  }
}

function jsonOf(action: Action): Record<string, unknown> {
  const { do: what, side, path } = action;
  return {
    event: 'change',
    do: what,
    side,
    path,
    ...(action.do === 'copy' && { size: action.entry.size }),
    ...(action.do === 'rename' && { to: action.to }),
    ...(action.do === 'mode' && { executable: action.entry.executable }),
  };
}
