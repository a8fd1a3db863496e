import type { IdleReply, StopCause } from '@cde/api/activity.ts';
import type { Activity } from './activity.ts';

interface Warnings {
  /** Call this with what each reply of the server says about idleness. */
  update(idle: IdleReply): void;
  close(): void;
}

/** The maximum of setTimeout. */
const maxTimerMs = 2 ** 31 - 1;

const reasons: Record<StopCause, string> = {
  idle: 'because nothing has been active in it',
  'max-run': 'because it has reached its maximum run time',
  schedule: 'by its daily schedule',
  dormant: 'because nobody has used it for a long time',
  request: 'because a person asked for it',
};

/**
 * Warns in all open terminals before the workspace stops, once each time a threshold is crossed. A workspace that stops after 10
 * idle minutes is always below the threshold of 15 minutes, and would otherwise warn after each keystroke.
 */
export function makeWarnings(options: {
  workspace: () => string;
  openTerminals: { show(line: string): void; withdraw(): void };
  activity: Pick<Activity, 'latestAgeMs'>;
  /** Called instead of a warning if there was activity that the server does not know of. */
  reportSoon: () => void;
  /** Runs `cde` in any shell of the workspace; undefined if there is none. */
  command: string | undefined;
  /** Monotonic milliseconds. */
  now?: () => number;
  /** The time of day in milliseconds. */
  timeOfDay?: () => number;
}): Warnings {
  const { openTerminals, activity, now = () => performance.now(), timeOfDay = Date.now } = options;
  let timer: NodeJS.Timeout | undefined;
  let idle: IdleReply | null = null;
  let heardAt = 0;
  let stopAt = 0;
  /** Thresholds that are still ahead. */
  const ahead = new Set<number>();

  function check() {
    clearTimeout(timer);
    if (!idle) return;
    const leftMs = stopAt - now();
    const crossed = [...ahead].filter((beforeMs) => leftMs <= beforeMs);
    if (crossed.length > 0 && leftMs > 0) {
      const sinceMs = now() - heardAt;
      const activeMs = activity.latestAgeMs();
      // Work does not postpone the stop of a workspace that no person uses.
      const isExtendable = idle.extendable && idle.cause !== 'dormant';
      if (isExtendable && activeMs !== null && activeMs < sinceMs) {
        // The reply moves the stop, or confirms it and warns then.
        options.reportSoon();
        return;
      }
      for (const beforeMs of crossed) ahead.delete(beforeMs);
      openTerminals.show(
        warningText({
          workspace: options.workspace(),
          idle,
          leftMs,
          at: timeOfDay(),
          command: options.command,
        }),
      );
    }
    if (ahead.size === 0 || leftMs <= 0) return;
    timer = setTimeout(check, Math.min(leftMs - Math.max(...ahead), maxTimerMs)).unref();
  }

  return {
    update(reply) {
      heardAt = now();
      if (reply.stopsInMs === null) {
        idle = null;
        ahead.clear();
        clearTimeout(timer);
        openTerminals.withdraw();
        return;
      }
      idle = reply;
      stopAt = heardAt + reply.stopsInMs;
      for (const beforeMs of reply.warnBeforeMs) {
        if (reply.stopsInMs <= beforeMs || ahead.has(beforeMs)) continue;
        // At first, or because the stop has moved: a warning that still waits for a full-screen program to end is outdated.
        ahead.add(beforeMs);
        openTerminals.withdraw();
      }
      check();
    },
    close: () => clearTimeout(timer),
  };
}

function warningText({
  workspace,
  idle,
  leftMs,
  at,
  command,
}: {
  workspace: string;
  idle: IdleReply;
  leftMs: number;
  at: number;
  command: string | undefined;
}): string {
  const minutes = Math.max(1, Math.round(leftMs / 60_000));
  const time = new Date(at + leftMs).toISOString().slice(11, 16);
  const why = idle.cause ? `, ${reasons[idle.cause]}` : '';
  const action = idle.extendable
    ? `To keep it awake, press a key here${command === undefined ? '.' : `, or run: ${command} keep-awake --for 3h`}`
    : 'Save your work.';
  return `cde: ${workspace} stops in ${minutes} ${minutes === 1 ? 'minute' : 'minutes'} (${time} UTC)${why}. ${action}`;
}
