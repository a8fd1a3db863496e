import { constants } from 'node:os';
import type { ServerChannel } from 'ssh2';
import { prepareCommand } from './command.ts';
import { openPty, type Pty } from './pty.ts';
import { finishChannel, type Job, type Running, signalGroup, signalName, type Terminal } from './run.ts';
import { makeScreen, type Screen } from './screen.ts';

/** As long as a session waits for a sleeping laptop. */
const retentionMs = 8 * 3600_000;
/** Each uses a few megabytes. */
const maxTerminals = 16;
/** The program is paused above this much unprocessed output. */
const highWater = 512 * 1024;
/** A viewer that falls this far behind gets a snapshot of the screen instead of all output. */
const maxViewerBacklog = 1024 * 1024;
/** The screen is kept in memory cell by cell; this limits it to 15 MB. */
const maxColumns = 1000;
const maxRows = 500;
/** A terminal's replies to a program's queries: attributes, cursor position, colours. */
const terminalReplies =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences consist of them
  /^(\x1b\[[?>=]?[\d;]*[cRn]|\x1bP[^\x1b]*\x1b\\|\x1b\][\d;]+;rgb:[\w/]+(\x07|\x1b\\))+$/;
/** Resets a terminal, including its scrollback. */
const reset = '\x1bc';

/** Of a login shell, whose output is no signal. */
const inTerminal = { output() {}, isFullScreen: false, close() {} };

interface Viewer {
  channel: ServerChannel;
  columns: number;
  rows: number;
  /** Output since a snapshot was requested; null if none is pending. */
  queued: Buffer[] | null;
  unsentBytes: number;
  isBehind: boolean;
  /** Called when all output has been sent. */
  onSent: (() => void) | null;
}

interface PersistentTerminal {
  name: string;
  pty: Pty;
  screen: Screen;
  viewers: Set<Viewer>;
  pending: number;
  used: number;
  timer: NodeJS.Timeout | undefined;
  ended: Promise<{ code: number | null; signal: string | null }>;
}

export interface PersistentTerminals {
  /**
   * Attaches a channel to the terminal with this name, and shows its screen; creates it if needed. The terminal outlives the
   * client for eight hours. With several clients its size is the largest that fits all.
   */
  attach(name: string, channel: ServerChannel, job: Job, terminal: Terminal, login: string[]): Running;
  /** Hangs up all terminals. */
  close(): void;
}

export function makePersistentTerminals(): PersistentTerminals {
  const all = new Map<string, PersistentTerminal>();

  function hangUp(persistent: PersistentTerminal) {
    clearTimeout(persistent.timer);
    if (all.get(persistent.name) === persistent) all.delete(persistent.name);
    signalGroup(persistent.pty.pid, 'HUP');
    persistent.pty.close();
  }

  function create(name: string, job: Job, terminal: Terminal, login: string[]): PersistentTerminal {
    if (all.size >= maxTerminals) {
      const unused = [...all.values()]
        .filter(({ viewers }) => viewers.size === 0)
        .sort((one, other) => one.used - other.used)[0];
      if (!unused) throw new Error(`${maxTerminals} terminals are already open; close one first`);
      hangUp(unused);
    }
    const { file, args } = prepareCommand(job.shell, login, terminal, {
      environment: job.rawEnvironment,
    });
    const { columns, rows } = screenSize(terminal);
    const { environment, folder } = job;
    const pty = openPty({ file, args, environment, folder, columns, rows });
    const screen = makeScreen(columns, rows);
    const persistent: PersistentTerminal = {
      name,
      pty,
      screen,
      viewers: new Set(),
      pending: 0,
      used: performance.now(),
      timer: undefined,
      ended: Promise.resolve({ code: null, signal: null }),
    };
    const show = (chunk: Buffer) => {
      persistent.pending += chunk.length;
      if (persistent.pending > highWater) pty.output.pause();
      screen.write(chunk, () => {
        persistent.pending -= chunk.length;
        if (persistent.pending < highWater / 2) pty.output.resume();
      });
      for (const viewer of persistent.viewers) deliver(persistent, viewer, chunk);
    };
    const shown = job.openTerminal((text) => show(Buffer.from(text)));
    pty.output.on('data', (chunk: Buffer) => {
      shown.output(chunk);
      show(chunk);
    });
    pty.output.on('error', () => {});
    // Without a viewer the program would wait for the reply forever.
    screen.onReply((text) => {
      if (persistent.viewers.size === 0) pty.write(Buffer.from(text), () => {});
    });
    pty.output.once('close', shown.close);
    persistent.ended = (async () => {
      const exit = await pty.exited;
      // Reads the rest of the output, a few kilobytes; a background process may hold the terminal open.
      const giveUp = setTimeout(() => pty.close(), 1000);
      if (!pty.output.destroyed) await new Promise((resolve) => pty.output.once('close', resolve));
      clearTimeout(giveUp);
      if (all.get(name) === persistent) all.delete(name);
      clearTimeout(persistent.timer);
      return { code: exit.code, signal: exit.signal ? (signalName(exit.signal) ?? null) : null };
    })();
    all.set(name, persistent);
    return persistent;
  }

  /** Sends or queues output. A viewer that exceeds the backlog skips output until it has caught up. */
  function deliver(persistent: PersistentTerminal, viewer: Viewer, chunk: Buffer) {
    if (viewer.isBehind) return;
    if (viewer.queued) viewer.queued.push(chunk);
    else send(persistent, viewer, chunk);
    if (
      viewer.unsentBytes + (viewer.queued ?? []).reduce((sum, { length }) => sum + length, 0) >
      maxViewerBacklog
    ) {
      viewer.isBehind = true;
      viewer.queued = null;
    }
  }

  function send(persistent: PersistentTerminal, viewer: Viewer, chunk: Buffer) {
    viewer.unsentBytes += chunk.length;
    viewer.channel.write(chunk, () => {
      viewer.unsentBytes -= chunk.length;
      if (viewer.unsentBytes === 0) viewer.onSent?.();
      if (viewer.isBehind && viewer.unsentBytes === 0 && persistent.viewers.has(viewer))
        redraw(persistent, viewer);
    });
  }

  /** Sends a snapshot of the screen, then the output since. */
  function redraw(persistent: PersistentTerminal, viewer: Viewer) {
    viewer.isBehind = false;
    viewer.queued = [];
    persistent.screen.write(Buffer.alloc(0), () => {
      const { queued } = viewer;
      // It has fallen behind again.
      if (!queued) return;
      viewer.queued = null;
      send(persistent, viewer, Buffer.from(reset + persistent.screen.snapshot()));
      for (const chunk of queued) send(persistent, viewer, chunk);
    });
  }

  function fit(persistent: PersistentTerminal) {
    const sizes = [...persistent.viewers];
    if (sizes.length === 0) return;
    const columns = Math.max(1, Math.min(...sizes.map((viewer) => viewer.columns)));
    const rows = Math.max(1, Math.min(...sizes.map((viewer) => viewer.rows)));
    persistent.screen.resize(columns, rows);
    persistent.pty.resize(columns, rows);
  }

  return {
    attach(name, channel, job, terminal, login) {
      const known = all.get(name);
      const persistent = known ?? create(name, job, terminal, login);
      const viewer: Viewer = {
        channel,
        ...screenSize(terminal),
        queued: null,
        unsentBytes: 0,
        isBehind: false,
        onSent: null,
      };
      clearTimeout(persistent.timer);
      persistent.viewers.add(viewer);
      fit(persistent);
      if (known) redraw(persistent, viewer);

      const leave = () => {
        if (!persistent.viewers.delete(viewer)) return;
        viewer.queued = null;
        channel.resume();
        persistent.used = performance.now();
        fit(persistent);
        if (persistent.viewers.size === 0 && all.get(name) === persistent) {
          persistent.timer = setTimeout(() => hangUp(persistent), retentionMs);
          persistent.timer.unref();
        }
      };
      channel.once('close', leave);
      const activity = job.observe(inTerminal);
      channel.on('data', (chunk: Buffer) => {
        activity.input(chunk);
        // Every viewer's terminal replies to a program's query; only the first one's reply is passed on.
        if (
          persistent.viewers.values().next().value !== viewer &&
          terminalReplies.test(chunk.toString('latin1'))
        )
          return;
        channel.pause();
        persistent.pty.write(chunk, () => channel.resume());
      });
      return {
        signal(signal) {
          if (`SIG${signal}` in constants.signals) signalGroup(persistent.pty.pid, signal);
        },
        resize(columns, rows) {
          if (columns < 1 || rows < 1) return;
          Object.assign(viewer, screenSize({ columns, rows }));
          fit(persistent);
        },
        closeOutput() {
          leave();
          finishChannel(channel, { code: 0, signal: null });
        },
        hangUp: leave,
        done: (async () => {
          const gone = new Promise<null>((resolve) => channel.once('close', () => resolve(null)));
          const exit = await Promise.race([persistent.ended, gone]);
          if (exit === null || !persistent.viewers.delete(viewer)) return;
          const onSent = new Promise<null>((resolve) => {
            viewer.onSent = () => resolve(null);
          });
          if (viewer.unsentBytes > 0) await Promise.race([onSent, gone]);
          finishChannel(channel, exit);
        })(),
      };
    },
    close() {
      for (const persistent of all.values()) hangUp(persistent);
    },
  };
}

/** A client without a terminal sends 0. */
function screenSize(terminal: { columns: number; rows: number }): { columns: number; rows: number } {
  return {
    columns: Math.min(terminal.columns || 80, maxColumns),
    rows: Math.min(terminal.rows || 24, maxRows),
  };
}
