import { join, posix } from 'node:path';
import { bytes } from '@cde/api/sizes.ts';
import type { Context } from '../command/context.ts';
import { clean, type Output } from '../output/output.ts';
import type { SyncEvent } from './engine.ts';
import type { Action, SideName } from './reconcile.ts';
import type { Pair, Status } from './state.ts';

/** More actions than this at once are counted instead of listed. */
const maxListedActions = 20;
/** The other side can invent any number of problems. */
const maxProblemLines = 200;
/** Actions come in bursts: how long to collect them before they are printed. */
const collectMs = 200;

const arrow: Record<SideName, string> = { local: '←', remote: '→' };

/** Reports what a sync does. */
export interface Reporter {
  begin(mode: { dryRun: boolean; once: boolean }): void;
  report(event: SyncEvent): void;
  /** What a dry run would do. */
  plan(actions: Action[]): void;
  /** The connection broke, or is back. */
  lost(): void;
  connected(): void;
  end(): void;
}

/** Lines for a person, or a JSON object for each event. */
export function makeReporter({ out }: Context, pair: Pair, status: Status): Reporter {
  const reporter = out.json ? makeJsonReporter(out, pair) : makeTextReporter(out, pair);
  return {
    ...reporter,
    report(event) {
      updateStatus(status, event);
      reporter.report(event);
    },
  };
}

function updateStatus(status: Status, event: SyncEvent): void {
  status.state = event.event === 'settled' ? 'settled' : 'syncing';
  if (event.event === 'settled') {
    status.files = event.files;
    status.problems = event.problems;
  }
  if (event.event === 'problem') status.problems += 1;
}

function makeJsonReporter(out: Output, { local, workspace, remote }: Pair): Reporter {
  const print = (event: object) => out.printJsonLine(event);
  return {
    begin({ dryRun }) {
      if (!dryRun) print({ event: 'begin', local, workspace, remote });
    },
    report: (event) => print(event.event === 'change' ? jsonOf(event.action) : event),
    plan(actions) {
      for (const action of actions) print({ ...jsonOf(action), event: 'would' });
    },
    lost: () => print({ event: 'lost' }),
    connected: () => print({ event: 'connected' }),
    end() {},
  };
}

function makeTextReporter(out: Output, pair: Pair): Reporter {
  let collected: Action[] = [];
  let timer: NodeJS.Timeout | undefined;
  let problemLines = 0;

  function flush(): void {
    clearTimeout(timer);
    timer = undefined;
    for (const text of summaryOf(collected)) out.print(text);
    collected = [];
  }

  /** Whether one more problem may be printed. */
  function admitProblem(): boolean {
    problemLines += 1;
    if (problemLines === maxProblemLines + 1)
      out.note('More paths have a problem; --json names all of them.');
    return problemLines <= maxProblemLines;
  }

  return {
    begin({ dryRun, once }) {
      if (dryRun) return;
      const until = once ? '' : ', until Ctrl-C';
      out.note(`${pair.local} ↔ ${pair.workspace}:${pair.remote}${until}. → to the workspace, ← from it.`);
    },
    report(event) {
      if (event.event === 'change') {
        collected.push(event.action);
        timer ??= setTimeout(flush, collectMs);
        return;
      }
      flush();
      switch (event.event) {
        case 'settled':
          problemLines = 0;
          break;
        case 'conflict':
          out.print(
            `! ${clean(event.path)}: changed on both sides; the workspace's version is ${clean(event.kept)}`,
          );
          break;
        case 'rules':
          if (admitProblem()) out.note(rulesLine(event, pair));
          break;
        case 'problem':
        case 'left-out': {
          const side = event.side === 'local' ? 'here' : pair.workspace;
          if (admitProblem()) out.note(clean(`${side}: ${event.path}: ${event.message} [${event.code}]`));
        }
      }
    },
    plan(actions) {
      if (actions.length === 0) out.print('Both are the same.');
      for (const action of actions) out.print(lineOf(action));
    },
    lost() {},
    connected() {},
    end: flush,
  };
}

/** A line for each action, or their number for each side if there are many. */
function summaryOf(actions: Action[]): string[] {
  if (actions.length <= maxListedActions) return actions.map(lineOf);
  return (['remote', 'local'] as const).flatMap((side) => {
    const mine = actions.filter((action) => action.side === side);
    if (mine.length === 0) return [];
    const removed = mine.filter((action) => action.do === 'remove').length;
    const size = mine.reduce((sum, action) => sum + (action.do === 'copy' ? action.entry.size : 0), 0);
    return [
      `${arrow[side]} ${mine.length - removed} changed (${bytes(size)})${removed ? `, ${removed} removed` : ''}`,
    ];
  });
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

/** A word quoted for a shell, in a command to copy: names come from the workspace. */
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
