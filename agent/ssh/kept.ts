import { constants } from 'node:os';
import type { ServerChannel } from 'ssh2';
import { prepareCommand } from './command.ts';
import { openPty, type Pty } from './pty.ts';
import { finishChannel, type Job, type Running, signalGroup, signalName, type Terminal } from './run.ts';
import { makeScreen, type Screen } from './screen.ts';

/** As long as a session waits for a laptop that sleeps. */
const keepMs = 8 * 3600_000;
/** Each may hold some megabytes. */
const mostTerminals = 16;
/** Output that was not yet taken in; above it the program waits. */
const highWater = 512 * 1024;
/** A viewer that is so far behind gets what the screen shows, once it has caught up, rather than all that led to it. */
const mostBehind = 1024 * 1024;
/** The screen is kept in memory, cell by cell: no client's size makes it larger than 15 MB. */
const maxColumns = 1000;
const maxRows = 500;
/** What a terminal answers to a program's questions: attributes, cursor, colours. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: that is what they are made of
const answers = /^(\x1b\[[?>=]?[\d;]*[cRn]|\x1bP[^\x1b]*\x1b\\|\x1b\][\d;]+;rgb:[\w/]+(\x07|\x1b\\))+$/;
/** Empties a terminal, scrollback and all, and sets it as at the start. */
const reset = '\x1bc';

interface Viewer {
  channel: ServerChannel;
  columns: number;
  rows: number;
  /** Null: it waits for what the screen shows; then what came since. */
  since: Buffer[] | null;
  behind: number;
  skips: boolean;
  /** Told when all that was sent has left. */
  sent: (() => void) | null;
}

interface Kept {
  name: string;
  pty: Pty;
  screen: Screen;
  viewers: Set<Viewer>;
  pending: number;
  used: number;
  timer: NodeJS.Timeout | undefined;
  ended: Promise<{ code: number | null; signal: string | null }>;
}

export interface KeptTerminals {
  /**
   * Joins a channel to the terminal of that name: one that runs, with all that it shows, or a new one. When the client goes,
   * the terminal stays, for eight hours. Several may be joined; its size is what fits all.
   */
  attach(name: string, channel: ServerChannel, job: Job, terminal: Terminal, login: string[]): Running;
  /** Hangs up all of them. */
  close(): void;
}

export function makeKeptTerminals(): KeptTerminals {
  const all = new Map<string, Kept>();

  function hangUp(kept: Kept) {
    clearTimeout(kept.timer);
    if (all.get(kept.name) === kept) all.delete(kept.name);
    signalGroup(kept.pty.pid, 'HUP');
    kept.pty.close();
  }

  function begin(name: string, job: Job, terminal: Terminal, login: string[]): Kept {
    if (all.size >= mostTerminals) {
      const unused = [...all.values()]
        .filter(({ viewers }) => viewers.size === 0)
        .sort((one, other) => one.used - other.used)[0];
      if (!unused) throw new Error(`${mostTerminals} terminals are open already; close one`);
      hangUp(unused);
    }
    const { file, args } = prepareCommand(job.shell, login, terminal, {
      environment: job.rawEnvironment,
    });
    const { columns, rows } = screenSize(terminal);
    const { environment, folder } = job;
    const pty = openPty({ file, args, environment, folder, columns, rows });
    const screen = makeScreen(columns, rows);
    const kept: Kept = {
      name,
      pty,
      screen,
      viewers: new Set(),
      pending: 0,
      used: performance.now(),
      timer: undefined,
      ended: Promise.resolve({ code: null, signal: null }),
    };
    pty.output.on('data', (chunk: Buffer) => {
      kept.pending += chunk.length;
      if (kept.pending > highWater) pty.output.pause();
      screen.write(chunk, () => {
        kept.pending -= chunk.length;
        if (kept.pending < highWater / 2) pty.output.resume();
      });
      for (const viewer of kept.viewers) show(kept, viewer, chunk);
    });
    pty.output.on('error', () => {});
    // With nobody there the program would wait for its answer for ever.
    screen.onAnswer((text) => {
      if (kept.viewers.size === 0) pty.write(Buffer.from(text), () => {});
    });
    kept.ended = (async () => {
      const exit = await pty.exited;
      // The rest of its output is in the terminal, some kilobytes at most; what still holds it may not hold us.
      const giveUp = setTimeout(() => pty.close(), 1000);
      if (!pty.output.destroyed) await new Promise((resolve) => pty.output.once('close', resolve));
      clearTimeout(giveUp);
      if (all.get(name) === kept) all.delete(name);
      clearTimeout(kept.timer);
      return { code: exit.code, signal: exit.signal ? (signalName(exit.signal) ?? null) : null };
    })();
    all.set(name, kept);
    return kept;
  }

  /** Sends, or keeps for later, or counts as lost; what is on its way is never without bound. */
  function show(kept: Kept, viewer: Viewer, chunk: Buffer) {
    if (viewer.skips) return;
    if (viewer.since) viewer.since.push(chunk);
    else send(kept, viewer, chunk);
    if (viewer.behind + (viewer.since ?? []).reduce((sum, { length }) => sum + length, 0) > mostBehind) {
      viewer.skips = true;
      viewer.since = null;
    }
  }

  function send(kept: Kept, viewer: Viewer, chunk: Buffer) {
    viewer.behind += chunk.length;
    viewer.channel.write(chunk, () => {
      viewer.behind -= chunk.length;
      if (viewer.behind === 0) viewer.sent?.();
      if (viewer.skips && viewer.behind === 0 && kept.viewers.has(viewer)) renew(kept, viewer);
    });
  }

  /** Shows all there is, and from there on what comes. */
  function renew(kept: Kept, viewer: Viewer) {
    viewer.skips = false;
    viewer.since = [];
    kept.screen.write(Buffer.alloc(0), () => {
      const { since } = viewer;
      // It fell behind again meanwhile.
      if (!since) return;
      viewer.since = null;
      send(kept, viewer, Buffer.from(reset + kept.screen.snapshot()));
      for (const chunk of since) send(kept, viewer, chunk);
    });
  }

  function fit(kept: Kept) {
    const sizes = [...kept.viewers];
    if (sizes.length === 0) return;
    const columns = Math.max(1, Math.min(...sizes.map((viewer) => viewer.columns)));
    const rows = Math.max(1, Math.min(...sizes.map((viewer) => viewer.rows)));
    kept.screen.resize(columns, rows);
    kept.pty.resize(columns, rows);
  }

  return {
    attach(name, channel, job, terminal, login) {
      const known = all.get(name);
      const kept = known ?? begin(name, job, terminal, login);
      const viewer: Viewer = {
        channel,
        ...screenSize(terminal),
        since: null,
        behind: 0,
        skips: false,
        sent: null,
      };
      clearTimeout(kept.timer);
      kept.viewers.add(viewer);
      fit(kept);
      if (known) renew(kept, viewer);

      const leave = () => {
        if (!kept.viewers.delete(viewer)) return;
        viewer.since = null;
        channel.resume();
        kept.used = performance.now();
        fit(kept);
        if (kept.viewers.size === 0 && all.get(name) === kept) {
          kept.timer = setTimeout(() => hangUp(kept), keepMs);
          kept.timer.unref();
        }
      };
      channel.once('close', leave);
      channel.on('data', (chunk: Buffer) => {
        // A program that asks the terminal is answered by each; the first one's counts.
        if (kept.viewers.values().next().value !== viewer && answers.test(chunk.toString('latin1'))) return;
        channel.pause();
        kept.pty.write(chunk, () => channel.resume());
      });
      return {
        signal(signal) {
          if (`SIG${signal}` in constants.signals) signalGroup(kept.pty.pid, signal);
        },
        resize(columns, rows) {
          if (columns < 1 || rows < 1) return;
          Object.assign(viewer, screenSize({ columns, rows }));
          fit(kept);
        },
        closeOutput() {
          leave();
          finishChannel(channel, { code: 0, signal: null });
        },
        hangUp: leave,
        done: (async () => {
          const gone = new Promise<null>((resolve) => channel.once('close', () => resolve(null)));
          const exit = await Promise.race([kept.ended, gone]);
          if (exit === null || !kept.viewers.delete(viewer)) return;
          const sent = new Promise<null>((resolve) => {
            viewer.sent = () => resolve(null);
          });
          if (viewer.behind > 0) await Promise.race([sent, gone]);
          finishChannel(channel, exit);
        })(),
      };
    },
    close() {
      for (const kept of all.values()) hangUp(kept);
    },
  };
}

/** A client without a terminal says 0. */
function screenSize(terminal: { columns: number; rows: number }): { columns: number; rows: number } {
  return {
    columns: Math.min(terminal.columns || 80, maxColumns),
    rows: Math.min(terminal.rows || 24, maxRows),
  };
}
